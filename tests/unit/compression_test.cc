#include "common/wire/compression.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "common/base/digest.h"

namespace fantail::wire {
namespace {

using Bytes = std::span<const std::byte>;

std::vector<std::byte> repeated_lines(std::size_t bytes) {
  std::vector<std::byte> out;
  for (int i = 0; out.size() < bytes; ++i) {
    const std::string line = std::to_string(i) + " GET /index.html 200\n";
    const auto raw = as_bytes(line);
    out.insert(out.end(), raw.begin(), raw.end());
  }
  out.resize(bytes);
  return out;
}

std::vector<std::byte> noise(std::size_t bytes) {
  std::mt19937 random(1);  // NOLINT: the same noise at every run
  std::vector<std::byte> out(bytes);
  for (auto& b : out) b = static_cast<std::byte>(random() & 0xFF);
  return out;
}

class CompressionTest : public testing::Test {
 protected:
  std::vector<std::byte> packed(Bytes raw) {
    std::vector<std::byte> out(raw.size());
    out.resize(compressor.compress(raw, out).value());
    return out;
  }
  static Chunk announcing(std::size_t raw_bytes, Encoding encoding = Encoding::kZstd) {
    Chunk chunk;
    chunk.stream = {1, 2};
    chunk.raw_length = static_cast<std::uint32_t>(raw_bytes);
    chunk.encoding = encoding;
    return chunk;
  }

  ChunkCompressor compressor{1};
  ChunkDecompressor decompressor;
};

TEST_F(CompressionTest, ChunkComesBackAsItWas) {
  for (const std::size_t bytes : {64u, 1000u, 256u * 1024, kMaxChunkBytes}) {
    const auto raw = repeated_lines(bytes);
    const auto payload = packed(raw);
    EXPECT_LT(payload.size(), raw.size());
    const auto back = decompressor.raw(announcing(bytes), payload);
    ASSERT_TRUE(back) << back.error().context;
    EXPECT_TRUE(std::equal(back->begin(), back->end(), raw.begin(), raw.end()));
  }
}

TEST_F(CompressionTest, EveryChunkStandsAlone) {
  const auto first = repeated_lines(5000);
  const auto second = repeated_lines(9000);
  packed(first);
  const auto payload = packed(second);
  ChunkDecompressor fresh;
  const auto back = fresh.raw(announcing(second.size()), payload);
  ASSERT_TRUE(back) << back.error().context;
  EXPECT_TRUE(std::equal(back->begin(), back->end(), second.begin(), second.end()));
}

TEST_F(CompressionTest, WhatDoesNotGetSmallerTravelsAsItIs) {
  for (const std::size_t bytes : {0u, 1u, 2u, 100u, 64u * 1024}) {
    const auto raw = noise(bytes);
    std::vector<std::byte> out(2 * bytes + 100);
    EXPECT_EQ(compressor.compress(raw, out), std::nullopt) << bytes;
  }
}

TEST_F(CompressionTest, ResultIsWrittenOnlyWhereThereIsRoom) {
  const auto raw = repeated_lines(64 * 1024);
  const std::size_t needed = packed(raw).size();
  for (const std::size_t room : {std::size_t{0}, std::size_t{1}, needed - 1}) {
    std::vector<std::byte> out(room + 16, std::byte{0x5A});
    EXPECT_EQ(compressor.compress(raw, std::span(out).first(room)), std::nullopt);
    EXPECT_TRUE(std::all_of(out.begin() + static_cast<std::ptrdiff_t>(room), out.end(),
                            [](std::byte b) { return b == std::byte{0x5A}; }));
  }
  std::vector<std::byte> enough(raw.size());
  EXPECT_EQ(compressor.compress(raw, enough), needed);
}

TEST_F(CompressionTest, PlainPayloadIsHandedOutWithoutACopy) {
  const auto raw = noise(1000);
  const auto back = decompressor.raw(announcing(raw.size(), Encoding::kNone), raw);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->data(), raw.data());
  EXPECT_EQ(back->size(), raw.size());
}

TEST_F(CompressionTest, AnyOtherLengthThanAnnouncedIsCorrupt) {
  const auto raw = repeated_lines(10'000);
  const auto payload = packed(raw);
  for (const std::size_t announced : {0u, 1u, 9'999u, 10'001u, kMaxChunkBytes}) {
    const auto back = decompressor.raw(announcing(announced), payload);
    ASSERT_FALSE(back) << announced;
    EXPECT_EQ(back.error().code, ErrorCode::kCorrupt);
  }
  EXPECT_TRUE(decompressor.raw(announcing(raw.size()), payload)) << "and the next good one decodes";
}

TEST_F(CompressionTest, GarbageIsCorrupt) {
  for (const std::size_t bytes : {0u, 1u, 4u, 100u, 64u * 1024}) {
    const auto back = decompressor.raw(announcing(kMaxChunkBytes), noise(bytes));
    ASSERT_FALSE(back) << bytes;
    EXPECT_EQ(back.error().code, ErrorCode::kCorrupt);
  }
}

TEST_F(CompressionTest, EveryShorterPayloadIsCorrupt) {
  const auto raw = repeated_lines(2000);
  const auto payload = packed(raw);
  for (std::size_t n = 0; n < payload.size(); ++n) {
    const std::vector<std::byte> cut(payload.begin(), payload.begin() + static_cast<std::ptrdiff_t>(n));
    EXPECT_FALSE(decompressor.raw(announcing(raw.size()), cut)) << n;
  }
}

TEST_F(CompressionTest, FlippedBitsGiveAnErrorOrTheAnnouncedNumberOfBytes) {
  const auto raw = repeated_lines(2000);
  const auto payload = packed(raw);
  for (std::size_t bit = 0; bit < 8 * payload.size(); ++bit) {
    auto damaged = payload;
    damaged[bit / 8] ^= std::byte{1} << (bit % 8);
    const auto back = decompressor.raw(announcing(raw.size()), damaged);
    if (back) {
      EXPECT_EQ(back->size(), raw.size());
    } else {
      EXPECT_EQ(back.error().code, ErrorCode::kCorrupt);
    }
  }
}

TEST_F(CompressionTest, BombIsStoppedAtTheAnnouncedLength) {
  const std::vector<std::byte> zeros(64 * 1024 * 1024);
  const auto bomb = packed(zeros);
  ASSERT_LT(bomb.size(), 16u * 1024);
  for (const std::size_t announced : {std::size_t{16 * 1024}, std::size_t{kMaxChunkBytes}}) {
    ChunkDecompressor fresh;  // its buffer has the announced size; the sanitizer build sees a write past it
    const auto back = fresh.raw(announcing(announced), bomb);
    ASSERT_FALSE(back);
    EXPECT_EQ(back.error().code, ErrorCode::kCorrupt);
  }
}

TEST_F(CompressionTest, ResultStaysValidUntilTheNextCallEvenWhenTheCompressorIsMoved) {
  const auto raw = repeated_lines(5000);
  ChunkCompressor moved = std::move(compressor);
  std::vector<std::byte> out(raw.size());
  const auto size = moved.compress(raw, out);
  ASSERT_TRUE(size);
  out.resize(*size);
  const auto back = decompressor.raw(announcing(raw.size()), out);
  ASSERT_TRUE(back);
  EXPECT_TRUE(std::equal(back->begin(), back->end(), raw.begin(), raw.end()));
}

}  // namespace
}  // namespace fantail::wire
