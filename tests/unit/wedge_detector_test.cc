#include "common/stream/wedge_detector.h"

#include <gmock/gmock.h>

namespace fantail {
namespace {

/// One node whose control link says that it sends; its broadcast arrives or not.
class WedgeDetectorTest : public testing::Test {
 protected:
  void sends() {
    node().sent_moved = now;
    if (!node().waiting_since) node().waiting_since = now;
  }
  void arrives() {
    node().broadcast = now;
    node().waiting_since.reset();
  }
  StreamSubscriber::NodeActivity& node() { return nodes[NodeId{1, 1}]; }
  bool wedged() { return detector.wedged(nodes, opened, now); }
  /// The node sends for `span`, and nothing arrives; how often the socket was replaced.
  int replaced_in(Duration span) {
    int times = 0;
    for (const MonoTime until = now + span; now < until; now += 100ms) {
      sends();
      if (!wedged()) continue;
      ++times;
      opened = now;
    }
    return times;
  }

  MonoTime now = MonoTime{} + 1h;
  MonoTime opened = now;
  WedgeDetector::Activity nodes;
  WedgeDetector detector;
};

TEST_F(WedgeDetectorTest, SilenceOfAQuietNodeIsNoFault) {
  node();
  now += 1h;
  EXPECT_FALSE(wedged());
}

TEST_F(WedgeDetectorTest, ANodeThatSendsAndIsHeardIsFine) {
  for (int i = 0; i < 100; ++i) {
    now += 100ms;
    sends();
    arrives();
    EXPECT_FALSE(wedged());
  }
}

TEST_F(WedgeDetectorTest, ANodeThatSendsAndIsNotHeardMeansThatTheSocketIsDead) {
  sends();
  arrives();
  now += 900ms;
  sends();
  EXPECT_FALSE(wedged());
  now += 1100ms;
  sends();
  EXPECT_TRUE(wedged());
}

TEST_F(WedgeDetectorTest, ABurstAfterALongPauseGetsTimeToArrive) {
  sends();
  arrives();
  now += 1h;
  sends();
  EXPECT_FALSE(wedged());
}

TEST_F(WedgeDetectorTest, ANewSocketGetsTimeToHearSomething) {
  EXPECT_EQ(replaced_in(1000ms), 0);
  EXPECT_EQ(replaced_in(300ms), 1);
  EXPECT_EQ(replaced_in(1000ms), 0);
}

TEST_F(WedgeDetectorTest, ReplacingThatDoesNotHelpIsDoneLessAndLessOften) {
  EXPECT_LE(replaced_in(2min), 7);
  EXPECT_LE(replaced_in(10min), 11);
}

TEST_F(WedgeDetectorTest, OnceItHelpedTheNextTimeIsQuickAgain) {
  replaced_in(10min);
  now += 10ms;
  arrives();
  EXPECT_FALSE(wedged());
  now += 70s;
  EXPECT_GE(replaced_in(10s), 2);
}

TEST_F(WedgeDetectorTest, OneSilentNodeAmongManyIsEnough) {
  bool noticed = false;
  for (int i = 0; i < 15; ++i) {
    now += 100ms;
    nodes[NodeId{2, 2}] = {now, now, std::nullopt};
    sends();
    noticed = noticed || wedged();
  }
  EXPECT_TRUE(noticed);
}

}  // namespace
}  // namespace fantail
