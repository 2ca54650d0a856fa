// What holds for the messages of every kind alike. Limits of single kinds: wire_limits_test.cc.
#include <gmock/gmock.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "common/base/digest.h"
#include "common/wire/codec.h"
#include "common/wire/compression.h"
#include "tests/support/wire_oracle.h"
#include "tests/support/wire_samples.h"

namespace fantail::wire {
namespace {

using Bytes = std::span<const std::byte>;
using test::WireSample;
using testing::HasSubstr;

void flip(std::vector<std::byte>& bytes, std::size_t bit) { bytes[bit / 8] ^= std::byte{1} << (bit % 8); }

/// Makes the digest right again after a change of something else, as docs/protocol.md defines it.
void seal(WireSample& m) {
  const Bytes header = m.header;
  std::uint64_t sum = digest({as_bytes(m.topic), header.first(8), header.subspan(kPrefixBytes), Bytes(m.payload)});
  for (std::size_t i = 8; i < kPrefixBytes; ++i, sum >>= 8) m.header[i] = static_cast<std::byte>(sum & 0xFF);
}

/// Every kind of message in turn.
class WireTest : public testing::TestWithParam<WireSample> {
 protected:
  Result<Envelope> open(std::string_view topic, Bytes header, Bytes payload) {
    return open_envelope(topic, header, payload);
  }
  bool refused(std::string_view topic, Bytes header, Bytes payload) {
    return !open(topic, header, payload).has_value();
  }

  const WireSample& sample = GetParam();
  const Bytes body = Bytes(sample.header).subspan(kPrefixBytes);
};

TEST_P(WireTest, ComesBackAsItWasEncoded) {
  const auto envelope = open(sample.topic, sample.header, sample.payload);
  ASSERT_TRUE(envelope) << envelope.error().context;
  EXPECT_EQ(envelope->kind, sample.kind);
  const auto same = sample.is_original(envelope->body, sample.payload);
  ASSERT_TRUE(same) << same.error().context;
  EXPECT_TRUE(*same);
}

TEST_P(WireTest, DecodesAtAnyAddress) {
  for (std::size_t shift = 0; shift < 8; ++shift) {
    std::vector<std::byte> moved(shift + body.size());
    std::copy(body.begin(), body.end(), moved.begin() + static_cast<std::ptrdiff_t>(shift));
    const auto same = sample.is_original(Bytes(moved).subspan(shift), sample.payload);
    ASSERT_TRUE(same) << same.error().context;
    EXPECT_TRUE(*same);
  }
}

TEST_P(WireTest, EveryShorterHeaderIsRefused) {
  for (std::size_t n = 0; n < sample.header.size(); ++n) {
    const auto envelope = open(sample.topic, Bytes(sample.header).first(n), sample.payload);
    ASSERT_FALSE(envelope) << n;
    EXPECT_EQ(envelope.error().code, n < kPrefixBytes ? ErrorCode::kTruncated : ErrorCode::kCorrupt) << n;
  }
}

TEST_P(WireTest, EveryShorterOrLongerPayloadAndTopicIsRefused) {
  for (std::size_t n = 0; n < sample.payload.size(); ++n) {
    EXPECT_TRUE(refused(sample.topic, sample.header, Bytes(sample.payload).first(n))) << n;
  }
  auto longer = sample.payload;
  longer.push_back({});
  EXPECT_TRUE(refused(sample.topic, sample.header, longer));
  for (std::size_t n = 0; n < sample.topic.size(); ++n) {
    EXPECT_TRUE(refused(sample.topic.substr(0, n), sample.header, sample.payload)) << n;
  }
  EXPECT_TRUE(refused(sample.topic + "x", sample.header, sample.payload));
}

TEST_P(WireTest, EveryFlippedBitOfAnyFrameIsRefused) {
  auto header = sample.header;
  for (std::size_t bit = 0; bit < 8 * header.size(); ++bit) {
    flip(header, bit);
    EXPECT_TRUE(refused(sample.topic, header, sample.payload)) << "header bit " << bit;
    flip(header, bit);
  }
  auto payload = sample.payload;
  for (std::size_t bit = 0; bit < 8 * payload.size(); ++bit) {
    flip(payload, bit);
    EXPECT_TRUE(refused(sample.topic, sample.header, payload)) << "payload bit " << bit;
    flip(payload, bit);
  }
  auto topic = sample.topic;
  for (std::size_t bit = 0; bit < 8 * topic.size(); ++bit) {
    topic[bit / 8] = static_cast<char>(topic[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_TRUE(refused(topic, sample.header, sample.payload)) << "topic bit " << bit;
    topic[bit / 8] = static_cast<char>(topic[bit / 8] ^ (1 << (bit % 8)));
  }
  EXPECT_FALSE(refused(sample.topic, header, payload)) << "the test restores what it flips";
}

// The digest protects against accidents only. Whoever can compute it can send any body, so decoders get them without
// it. Each is given in a block of its own exact size, so that the sanitizer build sees a read past its end.
TEST_P(WireTest, FlippedBitsInABodyGiveAnErrorOrAValueWithinTheLimits) {
  for (std::size_t bit = 0; bit < 8 * body.size(); ++bit) {
    std::vector<std::byte> damaged(body.begin(), body.end());
    flip(damaged, bit);
    test::decode_and_check(sample.kind, damaged, sample.payload);
  }
}

TEST_P(WireTest, ShortBodiesGiveAnErrorOrAValueWithinTheLimits) {
  for (std::size_t n = 0; n < body.size(); ++n) {
    const std::vector<std::byte> cut(body.begin(), body.begin() + static_cast<std::ptrdiff_t>(n));
    test::decode_and_check(sample.kind, cut, sample.payload);
  }
}

TEST_P(WireTest, BodiesOfAnyOtherKindGiveAnErrorOrAValueWithinTheLimits) {
  for (const WireSample& other : test::wire_samples()) test::decode_and_check(other.kind, body, sample.payload);
}

TEST_P(WireTest, RandomlyDamagedBodiesAndPayloadsGiveAnErrorOrAValueWithinTheLimits) {
  std::mt19937 random(static_cast<unsigned>(sample.kind));  // NOLINT: the same damage at every run
  const auto pick = [&](std::size_t below) { return std::uniform_int_distribution<std::size_t>(0, below - 1)(random); };
  constexpr std::uint32_t kExtremes[] = {0, 1, 4, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF};
  for (int round = 0; round < 1000; ++round) {
    std::vector<std::byte> damaged(body.begin(), body.end());
    auto payload = sample.payload;
    for (std::size_t n = 1 + pick(4); n > 0; --n) {
      if (damaged.size() >= 4 && pick(2) == 0) {
        const std::uint32_t extreme = kExtremes[pick(std::size(kExtremes))];
        std::memcpy(&damaged[4 * pick(damaged.size() / 4)], &extreme, sizeof extreme);
      } else {
        damaged[pick(damaged.size())] = static_cast<std::byte>(pick(256));
      }
      if (!payload.empty() && pick(2) == 0) payload[pick(payload.size())] = static_cast<std::byte>(pick(256));
    }
    test::decode_and_check(sample.kind, damaged, payload);
  }
}

TEST_P(WireTest, BytesMovedBetweenHeaderAndPayloadFrameNeverGiveOtherBytes) {
  // The digest does not see where the body ends and the payload begins; the lengths announced in the body do.
  std::vector<std::byte> both = sample.header;
  both.insert(both.end(), sample.payload.begin(), sample.payload.end());
  for (std::size_t cut = kPrefixBytes; cut <= both.size(); ++cut) {
    if (cut == sample.header.size()) continue;
    const Bytes payload = Bytes(both).subspan(cut);
    const auto envelope = open(sample.topic, Bytes(both).first(cut), payload);
    ASSERT_TRUE(envelope);
    const auto same = sample.is_original(envelope->body, payload);
    if (!same) continue;
    EXPECT_TRUE(*same) << "cut at " << cut;
    if (sample.kind != Kind::kChunk && sample.kind != Kind::kFetchData) continue;
    const auto chunk = sample.kind == Kind::kChunk
                           ? decode_chunk(envelope->body, payload)
                           : decode_fetch_data(envelope->body, payload).map([](const FetchData& m) { return m.chunk; });
    ASSERT_TRUE(chunk);
    ChunkDecompressor decompressor;
    EXPECT_FALSE(decompressor.raw(*chunk, payload)) << "cut at " << cut;
  }
}

TEST_P(WireTest, AnotherMajorVersionIsRefusedWithASentenceThatNamesBoth) {
  for (const int major : {0, 2, 255}) {
    WireSample other = sample;
    other.header[4] = static_cast<std::byte>(major);
    for (const bool digest_holds : {false, true}) {  // other versions may compute another digest
      if (digest_holds) seal(other);
      const auto envelope = open(other.topic, other.header, other.payload);
      ASSERT_FALSE(envelope);
      EXPECT_EQ(envelope.error().code, ErrorCode::kUnsupported);
      EXPECT_THAT(envelope.error().context, HasSubstr("version " + std::to_string(major)));
      EXPECT_THAT(envelope.error().context, HasSubstr("version " + std::to_string(kProtocolMajor)));
      EXPECT_EQ(claimed_major(other.header), major);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryKind, WireTest, testing::ValuesIn(test::wire_samples()),
                         [](const auto& row) { return row.param.name; });

TEST(WireSamplesTest, ThereIsOneOfEveryKind) {
  std::set<Kind> kinds;
  for (const auto& sample : test::wire_samples()) kinds.insert(sample.kind);
  EXPECT_EQ(kinds.size(), 20u);
}

class EnvelopeTest : public testing::Test {
 protected:
  static WireSample of_kind(Kind kind) {
    const auto all = test::wire_samples();
    return *std::find_if(all.begin(), all.end(), [&](const auto& s) { return s.kind == kind; });
  }
  WireSample ping = of_kind(Kind::kPing);
};

TEST_F(EnvelopeTest, UnknownKindIsPassedOnForTheReceiverToIgnoreAndCount) {
  for (const int kind : {0, 3, 15, 29, 255}) {
    ping.header[5] = static_cast<std::byte>(kind);
    seal(ping);
    const auto envelope = open_envelope(ping.topic, ping.header, ping.payload);
    ASSERT_TRUE(envelope) << envelope.error().context;
    EXPECT_EQ(static_cast<int>(envelope->kind), kind);
    EXPECT_FALSE(test::decode_and_check(envelope->kind, envelope->body, {}));
  }
}

TEST_F(EnvelopeTest, ReservedBytesAreCoveredByTheDigestAndOtherwiseIgnored) {
  ping.header[6] = std::byte{1};
  EXPECT_FALSE(open_envelope(ping.topic, ping.header, ping.payload));
  seal(ping);
  EXPECT_TRUE(open_envelope(ping.topic, ping.header, ping.payload));
}

TEST_F(EnvelopeTest, DigestIsStoredLittleEndianInTheLastEightBytesOfThePrefix) {
  WireSample again = ping;
  std::fill_n(again.header.begin() + 8, 8, std::byte{});
  seal(again);
  EXPECT_EQ(again.header, ping.header);
}

TEST_F(EnvelopeTest, FramesThatAreNotOursAreRefusedWithoutAVersion) {
  for (const std::string_view garbage :
       {"", "F", "FNT", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "fntl............", "FNTX............"}) {
    EXPECT_FALSE(open_envelope({}, as_bytes(garbage), {})) << garbage;
    EXPECT_EQ(claimed_major(as_bytes(garbage)), std::nullopt) << garbage;
  }
}

TEST_F(EnvelopeTest, HeaderFrameHasALimit) {
  ping.header.resize(kMaxHeaderBytes);
  seal(ping);
  EXPECT_TRUE(open_envelope(ping.topic, ping.header, ping.payload));
  ping.header.resize(kMaxHeaderBytes + 1);
  seal(ping);
  const auto envelope = open_envelope(ping.topic, ping.header, ping.payload);
  ASSERT_FALSE(envelope);
  EXPECT_EQ(envelope.error().code, ErrorCode::kCorrupt);
}

TEST_F(EnvelopeTest, EmptyBodyIsNoMessageOfAnyKind) {
  for (const auto& sample : test::wire_samples()) EXPECT_FALSE(sample.is_original({}, sample.payload)) << sample.name;
}

}  // namespace
}  // namespace fantail::wire
