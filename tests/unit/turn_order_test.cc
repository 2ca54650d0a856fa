#include "common/stream/turn_order.h"

#include <gmock/gmock.h>

#include <map>

namespace fantail {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Gt;
using testing::Lt;

constexpr StreamId id(std::uint64_t number) { return {0, number}; }
constexpr MonoTime kStart = MonoTime{} + 1h;
constexpr double kSavedUp = 0.1;  // seconds of a limit, at the beginning

class TurnOrderTest : public testing::Test {
 protected:
  struct Waiting {
    std::string topic;
    std::size_t message;  ///< bytes of each
  };
  /// `blocked`: the wire takes one message at a time. Streams that always have more, each of these messages, for so
  /// long on a wire of 100 MB/s; bytes by stream.
  std::map<std::uint64_t, double> send_for(TurnOrder& order, const std::vector<Waiting>& streams, Duration span,
                                           bool blocked = false) {
    std::map<std::uint64_t, double> sent;
    MonoTime now = kStart;
    for (std::size_t i = 0; i < streams.size(); ++i) order.push(id(i), streams[i].topic);
    while (now < kStart + span) {
      const auto turn = order.take(now);
      if (!turn) {
        const MonoTime due = order.due(now);
        EXPECT_GT(due, now) << "it would be asked again and again";
        now = due;
        continue;
      }
      const Waiting& stream = streams[turn->stream.lo];
      for (std::size_t done = 0; done < (blocked ? 1 : turn->share); done += stream.message) {
        order.sent(stream.topic, stream.message);
        sent[turn->stream.lo] += static_cast<double>(stream.message);
        now += std::chrono::nanoseconds(stream.message * 10);
      }
      blocked ? order.put_back(turn->stream, stream.topic) : order.push(turn->stream, stream.topic);
    }
    return sent;
  }
  /// Whose turns they are, of streams that have nothing more afterwards.
  static std::vector<std::uint64_t> turns(TurnOrder& order) {
    std::vector<std::uint64_t> out;
    while (const auto turn = order.take(kStart)) out.push_back(turn->stream.lo);
    return out;
  }
};

TEST_F(TurnOrderTest, StreamsTakeTurnsAsTheyCome) {
  TurnOrder order({}, false);
  EXPECT_TRUE(order.empty());
  for (const std::uint64_t n : {3, 1, 2}) order.push(id(n), n == 1 ? "a" : "b");
  EXPECT_THAT(turns(order), ElementsAre(3, 1, 2));
  EXPECT_TRUE(order.empty());
}

TEST_F(TurnOrderTest, WhoIsRemovedHasNoTurn) {
  for (const bool fair : {false, true}) {
    TurnOrder order({}, fair);
    order.push(id(1), "a");
    order.push(id(2), "b");
    order.push(id(3), "b");
    order.remove(id(1));
    order.remove(id(3));
    order.remove(id(7));
    EXPECT_THAT(turns(order), ElementsAre(2));
    EXPECT_TRUE(order.empty());
  }
}

TEST_F(TurnOrderTest, ATopicGetsNoMoreThanItsLimitAndOthersWhatIsLeft) {
  TurnOrder order({{"web", 10'000'000}}, false);
  const auto sent = send_for(order, {{"web/access", 50'000}, {"web", 50'000}, {"webmail", 250'000}}, 4s);
  EXPECT_NEAR(sent.at(0) + sent.at(1), 40e6 + kSavedUp * 10e6, 0.5e6);
  EXPECT_NEAR(sent.at(0), sent.at(1), 0.1e6) << "within a limit streams take turns";
  EXPECT_NEAR(sent.at(2), 360e6, 3e6) << "another topic, and nothing is left unused";
}

TEST_F(TurnOrderTest, OfSeveralLimitsAllHold) {
  TurnOrder order({{"web", 10'000'000}, {"web/access", 2'000'000}}, false);
  const auto sent = send_for(order, {{"web/access", 50'000}, {"web/error", 50'000}}, 4s);
  EXPECT_THAT(sent.at(0), AllOf(Gt(6e6), Lt(8e6 + kSavedUp * 2e6 + 0.1e6)));
  EXPECT_NEAR(sent.at(0) + sent.at(1), 40e6 + kSavedUp * 10e6, 0.5e6);
}

TEST_F(TurnOrderTest, FairTopicsGetTheSameBytesHoweverManyStreamsTheyHave) {
  std::vector<Waiting> streams(100, {"many", 20'000});
  streams.push_back({"one", 250'000});
  const auto topics = [&](const auto& sent) {
    double many = 0;
    for (std::uint64_t i = 0; i < 100; ++i) many += sent.contains(i) ? sent.at(i) : 0;
    return std::pair(many, sent.at(100));
  };
  for (const bool blocked : {false, true}) {
    TurnOrder fair({}, true);
    const auto [many, one] = topics(send_for(fair, streams, 4s, blocked));
    EXPECT_NEAR(many, 200e6, 3e6);
    EXPECT_NEAR(one, 200e6, 3e6);
  }
  TurnOrder by_stream({}, false);
  const auto [unfair_many, unfair_one] = topics(send_for(by_stream, streams, 4s));
  EXPECT_THAT(unfair_one * 50, Lt(unfair_many)) << "without it a topic gets more the more streams it has";
}

TEST_F(TurnOrderTest, FairTopicsKeepToTheirLimits) {
  TurnOrder order({{"slow", 5'000'000}}, true);
  const auto sent = send_for(order, {{"slow", 50'000}, {"a", 50'000}, {"b", 250'000}}, 4s);
  EXPECT_NEAR(sent.at(0), 20e6 + kSavedUp * 5e6, 0.3e6);
  EXPECT_NEAR(sent.at(1), 190e6, 3e6);
  EXPECT_NEAR(sent.at(2), 190e6, 3e6);
}

}  // namespace
}  // namespace fantail
