#include "common/stream/gap_detector.h"

#include <gmock/gmock.h>

namespace fantail {
namespace {

constexpr ByteRange kHole{{100}, {200}};

/// Time goes on with each question; the gap stands until the test says otherwise.
class GapDetectorTest : public testing::Test {
 protected:
  static RepairTiming timing() {
    RepairTiming t;
    t.repair_after = 250ms;
    t.answer_within = 2s;
    t.retry_first = 200ms;
    t.retry_max = 1s;
    t.window_bytes = 1000;
    return t;
  }
  std::optional<ByteRange> ask_after(Duration wait, double random = 0) {
    now += wait;
    const auto range = detector.due(gap, now, random);
    if (range) detector.asked(++request, *range, now);
    return range;
  }
  void answer(bool with_progress) {
    if (with_progress) detector.progressed(now);
    detector.answered(now, with_progress);
  }

  MonoTime now = MonoTime{} + 1h;
  GapDetector detector{timing()};
  Gap gap{kHole, false};
  std::uint64_t request = 0;
};

TEST_F(GapDetectorTest, NothingMissingIsNeverAskedFor) {
  gap.range = {{100}, {100}};
  EXPECT_EQ(ask_after(0ms), std::nullopt);
  EXPECT_EQ(ask_after(10s), std::nullopt);
}

TEST_F(GapDetectorTest, WhatOnlyAHeadTellsOfIsAskedForWhenTheStreamStandsStill) {
  EXPECT_EQ(ask_after(0ms), std::nullopt);
  EXPECT_EQ(ask_after(249ms), std::nullopt);
  EXPECT_EQ(ask_after(1ms), kHole);
}

TEST_F(GapDetectorTest, WhatTheBroadcastHasPassedIsAskedForAtOnce) {
  gap.passed = true;
  EXPECT_EQ(ask_after(0ms), kHole);
}

TEST_F(GapDetectorTest, ProgressBeginsTheGraceAnew) {
  EXPECT_EQ(ask_after(0ms), std::nullopt);
  EXPECT_EQ(ask_after(200ms), std::nullopt);
  detector.progressed(now);
  EXPECT_EQ(ask_after(0ms), std::nullopt);
  EXPECT_EQ(ask_after(249ms), std::nullopt);
  EXPECT_EQ(ask_after(1ms), kHole);
}

TEST_F(GapDetectorTest, OneRequestIsInFlightAtATime) {
  gap.passed = true;
  EXPECT_EQ(ask_after(0ms), kHole);
  EXPECT_EQ(ask_after(1s), std::nullopt);
  EXPECT_EQ(detector.in_flight()->request, 1U);
}

TEST_F(GapDetectorTest, AnUnansweredRequestIsRepeatedAfterABackOff) {
  gap.passed = true;
  EXPECT_EQ(ask_after(0ms), kHole);
  EXPECT_EQ(ask_after(1999ms), std::nullopt);
  EXPECT_EQ(ask_after(1ms), std::nullopt);  // given up now
  EXPECT_EQ(ask_after(199ms), std::nullopt);
  EXPECT_EQ(ask_after(1ms), kHole);
}

TEST_F(GapDetectorTest, AnAnswerThatComesInPiecesIsWaitedFor) {
  gap.passed = true;
  EXPECT_EQ(ask_after(0ms), kHole);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(ask_after(1900ms), std::nullopt);
    detector.heard(now);
  }
}

TEST_F(GapDetectorTest, AnswersThatBringNothingAreAskedForLessAndLessOften) {
  gap.passed = true;
  EXPECT_EQ(ask_after(0ms), kHole);
  for (const Duration pause : {200ms, 400ms, 800ms, 1000ms, 1000ms}) {
    answer(false);
    EXPECT_EQ(ask_after(pause - 1ms), std::nullopt);
    EXPECT_EQ(ask_after(1ms), kHole);
  }
}

TEST_F(GapDetectorTest, AnAnswerThatBringsPartOfItIsFollowedByTheNextAtOnce) {
  EXPECT_EQ(ask_after(0ms), std::nullopt);
  EXPECT_EQ(ask_after(250ms), kHole);
  answer(true);
  gap.range.from = {150};
  EXPECT_EQ(ask_after(0ms), (ByteRange{{150}, {200}}));
}

TEST_F(GapDetectorTest, AWideGapIsAskedForWindowByWindow) {
  gap = {{{0}, {5000}}, true};
  EXPECT_EQ(ask_after(0ms), (ByteRange{{0}, {1000}}));
}

TEST_F(GapDetectorTest, ARequestThatWentDownWithItsPeerIsAskedAnewAtOnce) {
  gap.passed = true;
  EXPECT_EQ(ask_after(0ms), kHole);
  detector.abandoned();
  EXPECT_EQ(ask_after(0ms), kHole);
}

TEST_F(GapDetectorTest, JitterSpreadsConsumers) {
  RepairTiming spread = timing();
  spread.max_jitter = 50ms;
  detector = GapDetector(spread);
  gap.passed = true;
  EXPECT_EQ(ask_after(0ms, 0.5), std::nullopt);
  EXPECT_EQ(ask_after(24ms, 0.99), std::nullopt) << "drawn once per gap";
  EXPECT_EQ(ask_after(1ms, 0.99), kHole);
}

TEST_F(GapDetectorTest, AClosedGapLeavesNoBackOffBehind) {
  gap.passed = true;
  EXPECT_EQ(ask_after(0ms), kHole);
  answer(false);
  gap.range = {};
  EXPECT_EQ(ask_after(0ms), std::nullopt);
  gap.range = {{200}, {300}};
  EXPECT_EQ(ask_after(0ms), gap.range);
}

}  // namespace
}  // namespace fantail
