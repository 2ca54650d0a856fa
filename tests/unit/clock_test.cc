#include "common/base/clock.h"

#include <gmock/gmock.h>

#include <cstdint>

namespace fantail {
namespace {

constexpr WallTime kSample{1'795'367'045'123'456'789};

TEST(ClockTest, WritesMicrosecondsInUtc) {
  EXPECT_EQ(to_iso8601(kSample), "2026-11-22T17:04:05.123456Z");
  EXPECT_EQ(to_compact_utc(kSample), "20261122T170405Z");
  EXPECT_EQ(to_date(kSample), "2026-11-22");
}

TEST(ClockTest, WritesTheEpoch) {
  EXPECT_EQ(to_iso8601({0}), "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(to_iso8601({999}), "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(to_iso8601({1000}), "1970-01-01T00:00:00.000001Z");
}

TEST(ClockTest, TimesBeforeTheEpochKeepTheirOrder) {
  EXPECT_EQ(to_iso8601({-1}), "1969-12-31T23:59:59.999999Z");
  EXPECT_EQ(to_iso8601({-1'000'000'000}), "1969-12-31T23:59:59.000000Z");
  EXPECT_EQ(to_date({-1}), "1969-12-31");
}

TEST(ClockTest, WritesTheExtremesThatCanComeFromTheWire) {
  EXPECT_EQ(to_iso8601({INT64_MAX}), "2262-04-11T23:47:16.854775Z");
  EXPECT_EQ(to_iso8601({INT64_MIN}), "1677-09-21T00:12:43.145224Z");
}

TEST(ClockTest, LeapDayExistsInLeapYearsOnly) {
  EXPECT_EQ(to_date({951'782'400'000'000'000}), "2000-02-29");
  EXPECT_EQ(to_date({1'772'323'200'000'000'000}), "2026-03-01");
  EXPECT_EQ(to_date({1'772'323'199'999'999'999}), "2026-02-28");
}

TEST(ClockTest, WallTimeIsNanosecondsOfTheSystemClock) {
  const auto before = std::chrono::system_clock::now().time_since_epoch();
  const WallTime now = wall_now();
  const auto after = std::chrono::system_clock::now().time_since_epoch();
  EXPECT_GE(now.ns, std::chrono::nanoseconds(before).count());
  EXPECT_LE(now.ns, std::chrono::nanoseconds(after).count());
}

TEST(ClockTest, MillisecondsAreCutOffNotRounded) {
  EXPECT_EQ(to_milliseconds(1999us), 1);
  EXPECT_EQ(to_milliseconds(2s), 2000);
}

}  // namespace
}  // namespace fantail
