#include "common/base/types.h"

#include <gmock/gmock.h>

#include <cstdint>
#include <unordered_set>

namespace fantail {
namespace {

constexpr StreamId kId{0x0011223344556677, 0x8899aabbccddeeff};
constexpr std::string_view kHex = "00112233445566778899aabbccddeeff";

TEST(FileOffsetTest, MovesForwardByBytesAndMeasuresDistances) {
  const FileOffset start{4096};
  EXPECT_EQ((start + 15).raw, 4111u);
  EXPECT_EQ((start + 15) - start, 15u);
  EXPECT_LT(start, start + 1);
}

TEST(ByteRangeTest, CountsTheBytesFromItsStartUpToButNotIncludingItsEnd) {
  const ByteRange range{{10}, {25}};
  EXPECT_FALSE(range.empty());
  EXPECT_EQ(range.bytes(), 15u);
}

TEST(ByteRangeTest, IsEmptyWhenItEndsWhereItBeginsOrBefore) {
  EXPECT_TRUE((ByteRange{{10}, {10}}.empty()));
  EXPECT_TRUE((ByteRange{{10}, {9}}.empty()));
  EXPECT_EQ((ByteRange{{10}, {9}}.bytes()), 0u);
}

TEST(ByteRangeTest, HoldsAllTheBytesThatThereCanBe) { EXPECT_EQ((ByteRange{{0}, {UINT64_MAX}}.bytes()), UINT64_MAX); }

TEST(IdTest, IsFalseOnlyWhenAllOfItIsZero) {
  EXPECT_FALSE(StreamId{});
  EXPECT_TRUE((StreamId{0, 1}));
  EXPECT_TRUE((StreamId{1, 0}));
}

TEST(IdTest, IsWrittenAsThirtyTwoLowerCaseDigitsHighWordFirst) {
  EXPECT_EQ(to_string(kId), kHex);
  EXPECT_EQ(short_hex(kId), "00112233");
  EXPECT_EQ(to_string(StreamId{}), std::string(32, '0'));
}

TEST(IdTest, IsReadBackFromWhatItWasWrittenAs) {
  EXPECT_EQ(id_from_hex<StreamId>(kHex), kId);
  EXPECT_EQ(id_from_hex<StreamId>("00112233445566778899AABBCCDDEEFF"), kId);
}

TEST(IdTest, IsNotReadFromAnythingButThirtyTwoDigits) {
  for (const std::string_view text : {
           "",
           "00112233445566778899aabbccddeef",
           "00112233445566778899aabbccddeeff0",
           "00112233445566778899aabbccddeefg",
           " 0112233445566778899aabbccddeeff",
           "0x112233445566778899aabbccddeeff",
           "00112233-4455-6677-8899-aabbccdde",
           "+0112233445566778899aabbccddeeff",
       }) {
    EXPECT_EQ(id_from_hex<StreamId>(text), std::nullopt) << text;
  }
}

TEST(IdTest, IsNeverZeroNorDrawnTwice) {
  std::unordered_set<StreamId> seen;
  for (int i = 0; i < 1000; ++i) {
    const auto id = random_id<StreamId>();
    EXPECT_NE(id.hi, 0u);
    EXPECT_NE(id.lo, 0u);
    EXPECT_TRUE(seen.insert(id).second);
  }
}

TEST(IdTest, SortsByItsWrittenForm) {
  const StreamId low{1, UINT64_MAX};
  const StreamId high{2, 0};
  EXPECT_LT(low, high);
  EXPECT_LT(to_string(low), to_string(high));
}

}  // namespace
}  // namespace fantail
