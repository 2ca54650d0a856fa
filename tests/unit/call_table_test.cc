#include "common/rpc/call_table.h"

#include <gmock/gmock.h>

namespace fantail::rpc {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Optional;
using Kind = CallError::Kind;

/// A caller whose time and peer are the test's.
class CallTableTest : public testing::Test {
 protected:
  std::uint64_t start(CallOptions options = {}) {
    const std::size_t index = results.size();
    results.emplace_back();
    return table.add({"get", "{}", options, [this](std::string_view text) { partials.emplace_back(text); },
                      [this, index](CallResult<std::string> result) { results[index] = std::move(result); }},
                     now);
  }
  std::uint64_t start_and_send(CallOptions options = {}) {
    const std::uint64_t number = start(options);
    table.sent(number);
    return number;
  }
  Kind kind_of(std::size_t index) { return results.at(index).value().error().kind; }

  MonoTime now{1000s};
  CallTable table;
  std::vector<std::string> partials;
  std::vector<std::optional<CallResult<std::string>>> results;
};

TEST_F(CallTableTest, AnAnswerEndsItsOwnCallWhateverTheOrder) {
  const auto first = start_and_send();
  const auto second = start_and_send();
  table.on_reply({second, 0, false}, "two");
  EXPECT_FALSE(results[0]);
  EXPECT_EQ(results[1].value(), "two");
  table.on_reply({first, 0, false}, "one");
  EXPECT_EQ(results[0].value(), "one");
}

TEST_F(CallTableTest, ALateAnswerNeverReachesAnotherCall) {  // X: the defect of the original
  const auto first = start_and_send({.timeout = 1s});
  now += 2s;
  EXPECT_THAT(table.expire(now, "tcp://there:1"), ElementsAre(first));
  EXPECT_EQ(kind_of(0), Kind::kTimeout);
  const auto second = start_and_send();
  table.on_reply({first, 0, false}, "late");
  EXPECT_FALSE(results[1]);
  EXPECT_EQ(table.late_answers(), 1u);
  table.on_reply({second, 0, false}, "in time");
  EXPECT_EQ(results[1].value(), "in time");
}

TEST_F(CallTableTest, PartialAnswersComeInOrderBeforeTheFinalOne) {
  const auto number = start_and_send();
  table.on_reply({number, 0, true}, "a");
  table.on_reply({number, 1, true}, "b");
  table.on_reply({number, 1, true}, "repeated");
  table.on_reply({number, 3, true}, "from the future");
  table.on_reply({number, 2, false}, "end");
  EXPECT_THAT(partials, ElementsAre("a", "b"));
  EXPECT_EQ(results[0].value(), "end");
  EXPECT_EQ(table.late_answers(), 2u);
}

TEST_F(CallTableTest, AFailureCarriesTypeMessageAndTrace) {
  const auto number = start_and_send();
  table.on_failure({number, "key_absent", "no such key", "store.cc:1"});
  const CallError error = results[0].value().error();
  EXPECT_EQ(error.kind, Kind::kRemote);
  EXPECT_EQ(error.type, "key_absent");
  EXPECT_EQ(error.message, "no such key");
  EXPECT_EQ(error.trace, "store.cc:1");
}

TEST_F(CallTableTest, WhatWasNeverSentSaysThatNobodyAnswersThere) {
  start({.timeout = 100ms});
  now += 100ms;
  EXPECT_THAT(table.expire(now, "tcp://there:1"), IsEmpty()) << "nothing to cancel";
  EXPECT_EQ(kind_of(0), Kind::kUnreachable);
  EXPECT_THAT(results[0].value().error().message, HasSubstr("tcp://there:1"));
}

TEST_F(CallTableTest, WhenThePeerGoesOnlyRepeatableCallsAreSentAgain) {
  const auto once = start_and_send();
  const auto again = start_and_send({.repeatable = true});
  const auto waiting = start();
  table.on_peer_down("it was killed");
  EXPECT_EQ(kind_of(0), Kind::kLost);
  EXPECT_FALSE(results[1]);
  EXPECT_THAT(table.next_unsent(), Optional(again));
  table.sent(again);
  EXPECT_THAT(table.next_unsent(), Optional(waiting));
  table.on_reply({once, 0, false}, "too late");
  EXPECT_EQ(table.late_answers(), 1u);
}

TEST_F(CallTableTest, ARepeatableCallOfWhichPartsCameIsNotRepeated) {
  const auto number = start_and_send({.repeatable = true});
  table.on_reply({number, 0, true}, "a part");
  table.on_peer_down("it was killed");
  EXPECT_EQ(kind_of(0), Kind::kLost);
}

TEST_F(CallTableTest, ACallMayStartAnotherWhenItEnds) {
  std::uint64_t second = 0;
  const auto first =
      table.add({"get", "", {}, {}, [&](const CallResult<std::string>&) { second = start_and_send(); }}, now);
  table.sent(first);
  table.on_peer_down("gone");
  EXPECT_NE(second, 0u);
  EXPECT_FALSE(results[0]) << "it was started after the peer went";
  EXPECT_EQ(table.size(), 1u);
}

TEST_F(CallTableTest, ZeroMeansForEver) {
  start_and_send({.timeout = 0s});
  EXPECT_EQ(table.due(), std::nullopt);
  now += 1000h;
  EXPECT_THAT(table.expire(now, "x"), IsEmpty());
  start({.timeout = 5s});
  EXPECT_THAT(table.due(), Optional(now + 5s));
}

}  // namespace
}  // namespace fantail::rpc
