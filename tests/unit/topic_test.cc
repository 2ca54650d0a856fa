#include <gmock/gmock.h>

#include <set>
#include <string>

#include "common/wire/codec.h"

namespace fantail::wire {
namespace {

struct Match {
  std::string_view wanted;
  std::string_view topic;
  bool expected;
};

constexpr Match kMatches[] = {
    {"", "web", true},
    {"", "web/access", true},
    {"web", "web", true},
    {"web", "web/access", true},
    {"web", "web/access/today", true},
    {"web", "webmail", false},
    {"web", "webmail/in", false},
    {"web", "we", false},
    {"web", "Web", false},
    {"web", "srv/web", false},
    {"web/access", "web", false},
    {"web/access", "web/access", true},
    {"web/access", "web/access/today", true},
    {"web/access", "web/accessory", false},
};

TEST(TopicTest, TakesItselfAndEverythingUnderItAndNothingElse) {
  for (const Match& m : kMatches) {
    EXPECT_EQ(topic_matches(m.wanted, m.topic), m.expected) << m.wanted << " for " << m.topic;
  }
}

TEST(TopicTest, PrefixSubscriptionTakesExactlyWhatMatches) {
  for (const Match& m : kMatches) {
    const bool received = chunk_topic_frame(m.topic).starts_with(topic_subscription(m.wanted));
    EXPECT_EQ(received, m.expected) << m.wanted << " for " << m.topic;
  }
}

TEST(TopicTest, FramesAreWrittenAsTheContractSays) {
  EXPECT_EQ(chunk_topic_frame("web/access"), "d/web/access/");
  EXPECT_EQ(topic_subscription("web"), "d/web/");
  EXPECT_EQ(topic_subscription(""), "d/");
  EXPECT_EQ(beacon_topic_frame(NodeId{0x0011223344556677, 0x8899aabbccddeeff}), "b/00112233445566778899aabbccddeeff");
}

TEST(TopicTest, BeaconsAreNotTakenByASubscriptionToData) {
  const std::string frame = beacon_topic_frame(NodeId{1, 2});
  EXPECT_TRUE(frame.starts_with(kBeaconSubscription));
  EXPECT_FALSE(frame.starts_with(topic_subscription("")));
  EXPECT_FALSE(chunk_topic_frame("b").starts_with(kBeaconSubscription));
}

TEST(TopicTest, OrdinaryNamesHaveNoProblem) {
  for (const std::string_view good :
       {"web", "web/access", "a/b/c/d", "with space", "über/alles", ".", "a.b-c_d", "-"}) {
    EXPECT_EQ(topic_problem(good), std::nullopt) << good;
  }
  EXPECT_EQ(topic_problem(std::string(kMaxTopicBytes, 'x')), std::nullopt);
}

TEST(TopicTest, NamesThatCannotBeOneAreRefusedWithASentence) {
  const std::string long_name(kMaxTopicBytes + 1, 'x');
  for (const std::string_view bad :
       {std::string_view(""), std::string_view("/"), std::string_view("/web"), std::string_view("web/"),
        std::string_view("web//access"), std::string_view("a\nb"), std::string_view("a\0b", 3),
        std::string_view("\x7f"), std::string_view("\x1b[2J"), std::string_view(long_name)}) {
    const auto problem = topic_problem(bad);
    ASSERT_TRUE(problem) << bad;
    EXPECT_THAT(*problem, testing::StartsWith("a topic "));
  }
}

TEST(LossReasonTest, EveryReasonHasWordsOfItsOwnAndUnknownNumbersHaveWordsToo) {
  std::set<std::string_view> words;
  for (std::uint8_t i = 0; i <= 6; ++i) words.insert(to_string(static_cast<LossReason>(i)));
  EXPECT_EQ(words.size(), 7u);
  EXPECT_EQ(to_string(static_cast<LossReason>(200)), to_string(LossReason::kUnknown));
}

}  // namespace
}  // namespace fantail::wire
