#include "common/transport/peer_health.h"

#include <gmock/gmock.h>

namespace fantail {
namespace {

using Verdict = PeerHealth::Verdict;

/// Times are given from the moment the peer came up.
class PeerHealthTest : public testing::Test {
 protected:
  Verdict at(Duration time) { return health.check(start + time); }
  void heard_at(Duration time) { health.heard(start + time); }

  const MonoTime start = MonoTime{} + 1h;
  PeerHealth health{HeartbeatTiming{.interval = 1s, .missed = 3}, start};
};

TEST_F(PeerHealthTest, APeerThatWasJustHeardIsNotAsked) {
  EXPECT_EQ(at(0ms), Verdict::kFine);
  EXPECT_EQ(at(999ms), Verdict::kFine);
}

TEST_F(PeerHealthTest, OneIntervalOfSilenceAsksForASign) { EXPECT_EQ(at(1s), Verdict::kPing); }

TEST_F(PeerHealthTest, SilenceIsAskedAboutOncePerIntervalHoweverOftenItIsChecked) {
  int pings = 0;
  for (Duration t = 0ms; t < 4s; t += 10ms) pings += at(t) == Verdict::kPing ? 1 : 0;
  EXPECT_EQ(pings, 3);
}

TEST_F(PeerHealthTest, ThreePingsThatAreNotAnsweredWithinAnIntervalEachAreDeath) {
  EXPECT_EQ(at(1s), Verdict::kPing);
  EXPECT_EQ(at(2s), Verdict::kPing);
  EXPECT_EQ(at(3s), Verdict::kPing);
  EXPECT_EQ(at(3999ms), Verdict::kFine);
  EXPECT_EQ(at(4s), Verdict::kDead);
}

TEST_F(PeerHealthTest, AnyMessageIsASignOfLifeAndStartsTheCountAnew) {
  EXPECT_EQ(at(1s), Verdict::kPing);
  EXPECT_EQ(at(3s), Verdict::kPing);
  heard_at(3900ms);
  EXPECT_EQ(at(4s), Verdict::kFine);
  EXPECT_EQ(at(4900ms), Verdict::kPing);
  EXPECT_EQ(at(7899ms), Verdict::kPing);
  EXPECT_EQ(at(7900ms), Verdict::kDead);
}

TEST_F(PeerHealthTest, APeerThatKeepsTalkingIsNeverAsked) {
  for (Duration t = 0ms; t < 1min; t += 500ms) {
    heard_at(t);
    EXPECT_EQ(at(t + 499ms), Verdict::kFine);
  }
}

TEST_F(PeerHealthTest, OfTwoIdleSidesTheSameOneAsksEveryTime) {
  PeerHealth second{HeartbeatTiming{.interval = 1s, .missed = 3}, start, PeerHealth::Side::kSecond};
  int pings = 0;
  for (Duration t = 0ms; t < 1min; t += 250ms) {
    if (at(t) == Verdict::kPing) {
      ++pings;
      heard_at(t);  // the answer
      second.heard(start + t);
    }
    EXPECT_EQ(second.check(start + t), Verdict::kFine);
  }
  EXPECT_EQ(pings, 59);
}

TEST_F(PeerHealthTest, TheSecondSideAsksWhenTheFirstOneDoesNotAndNoticesItsEndAtTheSameTime) {
  PeerHealth second{HeartbeatTiming{.interval = 1s, .missed = 3}, start, PeerHealth::Side::kSecond};
  EXPECT_EQ(second.check(start + 1499ms), Verdict::kFine);
  EXPECT_EQ(second.check(start + 1500ms), Verdict::kPing);
  EXPECT_EQ(second.check(start + 2500ms), Verdict::kPing);
  EXPECT_EQ(second.check(start + 3999ms), Verdict::kPing);
  EXPECT_EQ(second.check(start + 4s), Verdict::kDead);
}

TEST_F(PeerHealthTest, AShorterIntervalBeginsWithAPingAndNotWithDeath) {
  health.set_interval(8s, start);
  EXPECT_EQ(at(7999ms), Verdict::kFine);
  health.set_interval(1s, start + 7999ms);
  EXPECT_EQ(at(7999ms), Verdict::kPing);
  EXPECT_EQ(at(10998ms), Verdict::kPing);
  EXPECT_EQ(at(10999ms), Verdict::kDead) << "one interval of silence counts, and three that it was asked in";
}

TEST_F(PeerHealthTest, ALoopThatSleptThroughTheWholeTimeFindsThePeerDeadWithoutAPing) {
  EXPECT_EQ(at(1h), Verdict::kDead);
}

TEST_F(PeerHealthTest, WhoWasNotListenedToIsAskedOnceMoreBeforeItIsGivenUp) {
  health.was_not_listened_to(start + 1h);
  EXPECT_EQ(at(1h), Verdict::kPing);
  EXPECT_EQ(at(1h + 2499ms), Verdict::kPing);
  health.was_not_listened_to(start + 1h + 2499ms);
  EXPECT_EQ(at(1h + 2500ms), Verdict::kDead) << "a second time only after it was heard";
  heard_at(2h);
  health.was_not_listened_to(start + 3h);
  EXPECT_EQ(at(3h), Verdict::kPing);
}

TEST(PeerHealthTimingTest, FollowsTheIntervalAndTheCountThatItWasGiven) {
  const MonoTime start{};
  PeerHealth health({.interval = 100ms, .missed = 1}, start);
  EXPECT_EQ(health.check(start + 99ms), Verdict::kFine);
  EXPECT_EQ(health.check(start + 100ms), Verdict::kPing);
  EXPECT_EQ(health.check(start + 199ms), Verdict::kFine);
  EXPECT_EQ(health.check(start + 200ms), Verdict::kDead);
}

}  // namespace
}  // namespace fantail
