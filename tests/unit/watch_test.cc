#include "state/watch.h"

#include <gmock/gmock.h>

#include "common/json/json.h"

namespace fantail::state {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr InstanceId kMe{1, 1};
constexpr InstanceId kOther{2, 2};

Change set(const std::string& key, std::optional<std::string> before, std::optional<std::string> after,
           InstanceId by = kOther, const std::string& name_space = "default") {
  Change change{1, {1}, name_space, "set", by, {}};
  change.edits.push_back({key, std::move(before), std::move(after), {}, {}, 0});
  return change;
}

WatchFilter filter(const std::function<void(WatchSpec&)>& shape) {
  WatchSpec spec;
  shape(spec);
  EXPECT_THAT(spec.problems(), IsEmpty());
  return WatchFilter(std::move(spec));
}

TEST(WatchFilterTest, Z8_KeysPrefixesAndExclusions) {
  auto one = filter([](auto& s) { s.keys = {"k1"}; });
  EXPECT_FALSE(one.takes(set("k2", {}, "1")));
  EXPECT_TRUE(one.takes(set("k1", {}, "1")));
  auto without = filter([](auto& s) { s.exclude = {"k1"}; });
  EXPECT_TRUE(without.takes(set("k2", {}, "1")));
  EXPECT_FALSE(without.takes(set("k1", {}, "1")));
  auto below = filter([](auto& s) {
    s.prefixes = {"a/"};
    s.keys = {"b"};
  });
  EXPECT_TRUE(below.takes(set("a/x", {}, "1")));
  EXPECT_TRUE(below.takes(set("b", {}, "1")));
  EXPECT_FALSE(below.takes(set("a", {}, "1")));
  Change many = set("x", {}, "1");
  many.edits.push_back({"k1", "1", {}, {}, {}, 0});
  EXPECT_TRUE(one.takes(many)) << "one of several";
}

TEST(WatchFilterTest, Z4_AnotherNamespaceIsSilent) {
  auto here = filter([](auto& s) { s.name_space = "ns1"; });
  EXPECT_FALSE(here.takes(set("k", {}, "1", kOther, "ns2")));
  EXPECT_TRUE(here.takes(set("k", {}, "1", kOther, "ns1")));
}

TEST(WatchFilterTest, Z7_WhatChangesNothingIsToldOnlyWhenAskedFor) {
  auto usual = filter([](auto&) {});
  EXPECT_FALSE(usual.takes(set("k", "1", "1")));
  EXPECT_TRUE(usual.takes(set("k", "1", "2")));
  auto all = filter([](auto& s) { s.identical = true; });
  EXPECT_TRUE(all.takes(set("k", "1", "1")));
  WatchSpec contradictory;
  contradictory.keys = {"a", "b"};
  contradictory.identical = true;
  EXPECT_THAT(contradictory.problems(), ElementsAre(HasSubstr("leave one of the two out")));
}

TEST(WatchFilterTest, Z12_OwnChangesAreSilent) {
  auto others = filter([](auto& s) { s.without = kMe; });
  EXPECT_FALSE(others.takes(set("k", {}, "1", kMe)));
  EXPECT_TRUE(others.takes(set("k", "1", "2", kOther)));
}

TEST(WatchFilterTest, Z10_ConditionsLookAtTheKeyAfterTheChangeAndAtTheBeginning) {
  auto positive = filter([](auto& s) {
    s.keys = {"k"};
    s.condition = Condition::kGreater;
    s.operand = 0;
  });
  EXPECT_FALSE(positive.holds_now());
  EXPECT_FALSE(positive.takes(set("k", {}, "-1")));
  EXPECT_TRUE(positive.takes(set("k", "-1", "1")));
  EXPECT_TRUE(positive.holds_now());
  EXPECT_FALSE(positive.takes(set("other", {}, "5"))) << "another key has changed";
  EXPECT_TRUE(positive.takes(set("k", "1", "2")));
  EXPECT_FALSE(positive.takes(set("k", "2", {}))) << "absent";
  ASSERT_TRUE(positive.enter({"default", "k", "7", 1, {}}));
  ASSERT_TRUE(positive.enter({"elsewhere", "k", "-7", 1, {}}));
  EXPECT_FALSE(positive.enter({"default", "k", "7]", 1, {}}));
  EXPECT_TRUE(positive.holds_now());
}

TEST(ConditionTest, Z10_EachIsSafeForWhatIsAbsent) {
  const Json zero = 0;
  const Json null = nullptr;
  const Json text = "a";
  const struct {
    Condition condition;
    bool absent, is_null, is_zero, is_text;  // with operand 0
  } kTable[] = {
      {Condition::kEqual, false, false, true, false},    {Condition::kNotEqual, true, true, false, true},
      {Condition::kLess, false, false, false, false},    {Condition::kLessEqual, false, false, true, false},
      {Condition::kGreater, false, false, false, false}, {Condition::kGreaterEqual, false, false, true, false},
      {Condition::kTruthy, false, false, false, true},   {Condition::kFalsy, true, true, true, false},
      {Condition::kNull, false, true, false, false},     {Condition::kNotNull, false, false, true, true},
      {Condition::kAvailable, false, true, true, true},  {Condition::kAbsent, true, false, false, false}};
  for (const auto& row : kTable) {
    EXPECT_EQ(holds(row.condition, nullptr, zero), row.absent) << to_string(row.condition);
    EXPECT_EQ(holds(row.condition, &null, zero), row.is_null) << to_string(row.condition);
    EXPECT_EQ(holds(row.condition, &zero, zero), row.is_zero) << to_string(row.condition);
    EXPECT_EQ(holds(row.condition, &text, zero), row.is_text) << to_string(row.condition);
    EXPECT_EQ(condition_from(to_string(row.condition)), row.condition);
  }
}

TEST(TestFromTextTest, Z9_ComparesWhatAPointerLeadsTo) {
  const Json items = Json::parse(R"({"gold_price":39.5,"who":{"name":"x","a/b":[1,null]},"empty":[]})");
  const struct {
    const char* text;
    bool holds;
  } kTable[] = {{"/gold_price < 40", true},
                {"gold_price<40", true},
                {"/gold_price >= 40", false},
                {"/who/name == \"x\"", true},
                {"/who/name != \"x\"", false},
                {"/missing != 1", true},
                {"/missing == null", false},
                {"/missing < 1", false},
                {"/who/a~1b/0 == 1", true},
                {"/who/a~1b/1", false},
                {"/who", true},
                {"/empty", false},
                {"/gold_price < 40 && /who/name == \"y\"", false},
                {"/gold_price < 40 && /who", true}};
  for (const auto& row : kTable) {
    const auto test = parse_test(row.text);
    ASSERT_TRUE(test) << row.text << test.error().context;
    EXPECT_EQ((*test)(items), row.holds) << row.text;
  }
}

TEST(TestFromTextTest, MistakesAreNamed) {
  const auto problem = [](const std::string& text) {
    const auto test = parse_test(text);
    return test ? std::string() : test.error().context;
  };
  EXPECT_THAT(problem("/k == nonsense"), HasSubstr("behind == must be JSON"));
  EXPECT_THAT(problem("== 1"), HasSubstr("begins with a pointer"));
  EXPECT_THAT(problem("/k~2 == 1"), HasSubstr("no JSON pointer"));
  EXPECT_THAT(problem(""), HasSubstr("begins with a pointer"));
}

}  // namespace
}  // namespace fantail::state
