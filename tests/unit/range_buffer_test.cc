#include "common/stream/range_buffer.h"

#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "tests/support/seeded.h"

namespace fantail {
namespace {

using Kept = RangeBuffer::Kept;

/// Chunks of a stream whose byte at offset n is n modulo 251.
class RangeBufferTest : public testing::Test {
 protected:
  static std::string bytes(std::uint64_t from, std::uint64_t to) {
    std::string out;
    for (std::uint64_t i = from; i < to; ++i) out += static_cast<char>(i % 251);
    return out;
  }
  Kept insert(std::uint64_t from, std::uint64_t to) {
    wire::Chunk chunk;
    chunk.offset = {from};
    chunk.raw_length = static_cast<std::uint32_t>(to - from);
    return buffer.insert(chunk, Frame::copy_of(bytes(from, to)));
  }
  /// "from-to" of the piece that holds the byte at `cursor`.
  std::string take_at(std::uint64_t cursor) {
    const auto piece = buffer.take_at({cursor});
    if (!piece) return "nothing";
    EXPECT_EQ(piece->payload.text(), bytes(piece->chunk.offset.raw, piece->chunk.end().raw));
    return std::to_string(piece->chunk.offset.raw) + "-" + std::to_string(piece->chunk.end().raw);
  }

  PendingBudget budget{10'000};
  RangeBuffer buffer{budget};
};

TEST_F(RangeBufferTest, APieceIsTakenWhenTheCursorReachesIt) {
  EXPECT_EQ(insert(100, 200), Kept::kStored);
  EXPECT_EQ(take_at(99), "nothing");
  EXPECT_EQ(take_at(100), "100-200");
  EXPECT_TRUE(buffer.empty());
}

TEST_F(RangeBufferTest, APieceThatBeginsBeforeTheCursorIsTakenForItsRest) {
  insert(100, 200);
  EXPECT_EQ(take_at(150), "100-200");
}

TEST_F(RangeBufferTest, WhatLiesBehindTheCursorIsDropped) {
  insert(100, 200);
  insert(300, 400);
  EXPECT_EQ(take_at(200), "nothing");
  EXPECT_EQ(buffer.first(), FileOffset{300});
}

TEST_F(RangeBufferTest, WhatIsThereAlreadyIsADuplicate) {
  insert(100, 200);
  EXPECT_EQ(insert(100, 200), Kept::kDuplicate);
  EXPECT_EQ(insert(120, 180), Kept::kDuplicate);
  EXPECT_EQ(insert(100, 150), Kept::kDuplicate);
}

TEST_F(RangeBufferTest, ALongerPieceAtTheSameOffsetReplacesAShorterOne) {
  insert(100, 150);
  EXPECT_EQ(insert(100, 200), Kept::kStored);
  EXPECT_EQ(take_at(100), "100-200");
  EXPECT_TRUE(buffer.empty());
}

TEST_F(RangeBufferTest, MemoryIsBoundedAndGivenBack) {
  int stored = 0;
  while (insert(1000U * static_cast<unsigned>(stored), 1000U * static_cast<unsigned>(stored) + 900) == Kept::kStored)
    ++stored;
  EXPECT_GT(stored, 5);
  EXPECT_LE(budget.used(), 10'000U);
  take_at(0);
  EXPECT_EQ(insert(90'000, 90'900), Kept::kStored);
  buffer.clear();
  EXPECT_EQ(budget.used(), 0U);
}

TEST_F(RangeBufferTest, TinyPiecesCountForMoreThanTheirBytes) {
  int stored = 0;
  while (insert(10U * static_cast<unsigned>(stored), 10U * static_cast<unsigned>(stored) + 1) == Kept::kStored)
    ++stored;
  EXPECT_LT(stored, 100);
}

TEST_F(RangeBufferTest, AMovedBufferKeepsItsPiecesAndItsBudget) {
  insert(100, 200);
  const std::size_t used = budget.used();
  {
    RangeBuffer other(std::move(buffer));
    EXPECT_EQ(other.first(), FileOffset{100});
    EXPECT_EQ(budget.used(), used);
  }
  EXPECT_EQ(budget.used(), 0U);
}

TEST_F(RangeBufferTest, PiecesInAnyOrderAndOverlapGiveEveryByteOnce) {
  for (const std::uint64_t seed : test::seeds(100)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance chance(seed);
    PendingBudget room(1'000'000);
    RangeBuffer pieces(room);
    std::vector<bool> there(1000);
    for (int i = 0; i < 60; ++i) {
      const std::size_t from = chance.between(std::size_t{0}, std::size_t{990});
      const std::size_t to = std::min<std::size_t>(1000, from + chance.between(std::size_t{1}, std::size_t{60}));
      wire::Chunk chunk;
      chunk.offset = {from};
      chunk.raw_length = static_cast<std::uint32_t>(to - from);
      pieces.insert(chunk, Frame::copy_of(bytes(from, to)));
      std::fill(there.begin() + static_cast<std::ptrdiff_t>(from), there.begin() + static_cast<std::ptrdiff_t>(to),
                true);
    }
    for (std::uint64_t cursor = 0; cursor < 1000;) {
      const auto piece = pieces.take_at({cursor});
      ASSERT_EQ(piece.has_value(), there[cursor]) << "at " << cursor;
      cursor = piece ? piece->chunk.end().raw : cursor + 1;
    }
    pieces.clear();
    EXPECT_EQ(room.used(), 0U);
  }
}

}  // namespace
}  // namespace fantail
