#include "common/stream/commit_ledger.h"

#include <gmock/gmock.h>

namespace fantail {
namespace {

StreamId stream_id(std::uint64_t n) { return {n * 0x9E3779B97F4A7C15ULL, n}; }

wire::StreamInfo stream(std::uint64_t n, const std::string& topic = "web/access") {
  wire::StreamInfo info;
  info.stream = stream_id(n);
  info.topic = topic;
  return info;
}

class CommitLedgerTest : public testing::Test {
 protected:
  void seen(const std::string& name, Interest interest = {}, bool connected = true) {
    ledger.seen(name, std::move(interest), WallTime{1}, connected);
  }
  CommitLedger ledger;
};

TEST_F(CommitLedgerTest, WithoutADurableConsumerNothingIsHeld) { EXPECT_EQ(ledger.held_for(stream(1)), std::nullopt); }

TEST_F(CommitLedgerTest, TheSlowestConsumerCounts) {
  seen("fast");
  seen("slow");
  ledger.commit("fast", stream_id(1), {1000});
  EXPECT_EQ(ledger.held_for(stream(1)), FileOffset{0});
  ledger.commit("slow", stream_id(1), {10});
  EXPECT_EQ(ledger.held_for(stream(1)), FileOffset{10});
}

TEST_F(CommitLedgerTest, NobodyWaitsForWhatIsBeforeTheBase) {
  seen("c");
  wire::StreamInfo s = stream(1);
  s.base = {500};
  EXPECT_EQ(ledger.held_for(s), FileOffset{500});
  EXPECT_EQ(ledger.delivered_to(s), FileOffset{500});
  ledger.commit("c", stream_id(1), {700});
  EXPECT_EQ(ledger.held_for(s), FileOffset{700});
  EXPECT_EQ(ledger.delivered_to(s), FileOffset{700});
}

TEST_F(CommitLedgerTest, PositionsNeverGoBack) {
  seen("c");
  EXPECT_TRUE(ledger.commit("c", stream_id(1), {1000}));
  EXPECT_FALSE(ledger.commit("c", stream_id(1), {1000}));
  EXPECT_FALSE(ledger.commit("c", stream_id(1), {500}));
  EXPECT_EQ(ledger.position("c", stream_id(1)), FileOffset{1000});
}

TEST_F(CommitLedgerTest, AConsumerThatIsAwayIsStillWaitedFor) {
  seen("here");
  seen("away");
  ledger.disconnected("away", {});
  ledger.commit("here", stream_id(1), {1000});
  EXPECT_EQ(ledger.held_for(stream(1)), FileOffset{0});
  EXPECT_EQ(ledger.delivered_to(stream(1)), FileOffset{1000});
}

TEST_F(CommitLedgerTest, WhoHasAllOfItMayLeave) {
  EXPECT_EQ(ledger.delivered_to(stream(1)), std::nullopt);
  seen("one");
  seen("two");
  ledger.commit("one", stream_id(1), {1000});
  ledger.commit("two", stream_id(1), {10});
  ledger.disconnected("one", {});
  EXPECT_EQ(ledger.delivered_to(stream(1)), FileOffset{10}) << "who is here is waited for";
  ledger.disconnected("two", {});
  EXPECT_EQ(ledger.delivered_to(stream(1)), FileOffset{1000}) << "it is on somebody's disk";
}

TEST_F(CommitLedgerTest, WhoWasHereInAnotherRunIsNoReasonToLeave) {
  seen("known from before", {}, false);
  ledger.commit("known from before", stream_id(1), {1000});
  EXPECT_EQ(ledger.delivered_to(stream(1)), std::nullopt) << "another one may be waited for";
  EXPECT_FALSE(ledger.anybody_was_here());
  seen("known from before");
  EXPECT_TRUE(ledger.anybody_was_here());
  EXPECT_EQ(ledger.delivered_to(stream(1)), FileOffset{1000});
}

TEST_F(CommitLedgerTest, OnlyThoseWhoWantTheTopicCount) {
  seen("web", {{"web"}, 0, 1});
  seen("mail", {{"mail"}, 0, 1});
  ledger.commit("web", stream_id(1), {1000});
  EXPECT_EQ(ledger.held_for(stream(1)), FileOffset{1000});
  EXPECT_EQ(ledger.held_for(stream(1, "webmail")), std::nullopt);
}

TEST_F(CommitLedgerTest, AForgottenConsumerHoldsNothing) {
  seen("c");
  ledger.forget_consumer("c");
  EXPECT_EQ(ledger.held_for(stream(1)), std::nullopt);
}

TEST_F(CommitLedgerTest, AForgottenStreamBeginsAnew) {
  seen("c");
  ledger.commit("c", stream_id(1), {1000});
  ledger.forget_stream(stream_id(1));
  EXPECT_EQ(ledger.position("c", stream_id(1)), std::nullopt);
}

TEST_F(CommitLedgerTest, GreetingAgainChangesTheInterestAndKeepsThePositions) {
  seen("c", {{"mail"}, 0, 1});
  ledger.commit("c", stream_id(1), {1000});
  seen("c");
  EXPECT_EQ(ledger.held_for(stream(1)), FileOffset{1000});
}

TEST(ShardTest, EveryStreamBelongsToExactlyOneShare) {
  for (std::uint16_t count = 1; count <= 9; ++count) {
    for (std::uint64_t n = 0; n < 500; ++n) {
      int takers = 0;
      for (std::uint16_t i = 0; i < count; ++i) takers += shard_takes(stream_id(n), i, count) ? 1 : 0;
      ASSERT_EQ(takers, 1) << "stream " << n << " of " << count;
    }
  }
}

TEST(ShardTest, SharesAreAboutEqual) {
  constexpr int kStreams = 10'000;
  for (std::uint16_t i = 0; i < 5; ++i) {
    int taken = 0;
    for (std::uint64_t n = 0; n < kStreams; ++n) taken += shard_takes(stream_id(n), i, 5) ? 1 : 0;
    EXPECT_NEAR(taken, kStreams / 5, kStreams / 50);
  }
}

TEST(ShardTest, OneMoreShareTakesItsPartAndMovesNothingElse) {
  int moved = 0;
  for (std::uint64_t n = 0; n < 10'000; ++n) {
    for (std::uint16_t i = 0; i < 4; ++i) {
      if (shard_takes(stream_id(n), i, 4) && !shard_takes(stream_id(n), i, 5)) {
        ASSERT_TRUE(shard_takes(stream_id(n), 4, 5)) << "moved between shares that both stay";
        ++moved;
      }
    }
  }
  EXPECT_NEAR(moved, 2000, 200);
}

/// The digits are from another implementation of docs/protocol.md, "Shares".
TEST(ShardTest, IsTheSameOnEveryMachine) {
  const StreamId id{0x0011223344556677, 0x8899AABBCCDDEEFF};
  std::string takers;
  for (std::uint16_t count = 2; count <= 8; ++count) {
    for (std::uint16_t i = 0; i < count; ++i) {
      if (shard_takes(id, i, count)) takers += std::to_string(i);
    }
  }
  EXPECT_EQ(takers, "1111555");
}

}  // namespace
}  // namespace fantail
