#include <gmock/gmock.h>

#include <map>

#include "common/json/json.h"
#include "state/store.h"
#include "tests/support/seeded.h"

namespace fantail::state {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr InstanceId kMe{1, 2};

/// A store whose clock is the test's. Arguments and results are JSON texts.
class StateStoreTest : public testing::Test {
 protected:
  std::string run(std::string_view operation, std::string_view arguments = "{}") {
    const auto result = store.apply(operation, arguments, kMe, now);
    return result ? *result : "refused: " + result.error().type;
  }
  std::string problem(std::string_view operation, std::string_view arguments = "{}") {
    const auto result = store.apply(operation, arguments, kMe, now);
    return result ? "" : result.error().message;
  }
  std::string all(const std::string& name_space = "default") {
    const std::string text = run("items", R"({"namespace":")" + name_space + R"("})");
    return text.substr(0, text.rfind(",\"revision\"")) + "}";
  }

  WallTime now{1'000'000'000};
  StateStore store;
};

TEST_F(StateStoreTest, Z2_ADictionaryThatPeopleKnow) {
  EXPECT_EQ(run("set", R"({"key":"a","value":[1, 2]})"), "{}");
  EXPECT_EQ(run("get", R"({"key":"a"})"), R"({"value":[1,2],"revision":1})");
  EXPECT_EQ(run("has", R"({"key":"a"})"), R"({"value":true})");
  EXPECT_EQ(run("has", R"({"key":"b"})"), R"({"value":false})");
  EXPECT_EQ(run("get", R"({"key":"b"})"), "refused: key_absent");
  EXPECT_EQ(run("get", R"({"key":"b","default":null})"), R"({"value":null})");
  EXPECT_EQ(run("setdefault", R"({"key":"b","value":"x"})"), R"({"value":"x"})");
  EXPECT_EQ(run("setdefault", R"({"key":"b","value":"y"})"), R"({"value":"x","revision":2})");
  EXPECT_EQ(run("keys"), R"({"value":["a","b"]})");
  EXPECT_EQ(run("size"), R"({"value":2})");
  EXPECT_EQ(run("update", R"({"values":{"c":1,"a":2}})"), "{}");
  EXPECT_EQ(all(), R"({"value":{"a":2,"b":"x","c":1}})");
  EXPECT_EQ(run("keys", R"({"prefix":"b"})"), R"({"value":["b"]})");
  EXPECT_EQ(run("pop", R"({"key":"a"})"), R"({"value":2,"revision":3})");
  EXPECT_EQ(run("pop", R"({"key":"a"})"), "refused: key_absent");
  EXPECT_EQ(run("pop", R"({"key":"a","default":7})"), R"({"value":7})");
  EXPECT_EQ(run("popitem"), R"({"key":"c","value":1})");
  EXPECT_EQ(run("delete", R"({"key":"b"})"), "{}");
  EXPECT_EQ(run("delete", R"({"key":"b"})"), "refused: key_absent");
  EXPECT_EQ(run("popitem"), "refused: empty");
  EXPECT_EQ(run("replace", R"({"values":{"z":0}})"), "{}");
  EXPECT_EQ(run("clear"), "{}");
  EXPECT_EQ(run("size"), R"({"value":0})");
}

TEST_F(StateStoreTest, Z4_NamespacesAreIndependent) {
  run("set", R"({"key":"k","value":1,"namespace":"one"})");
  run("set", R"({"key":"k","value":2,"namespace":"two"})");
  run("clear", R"({"namespace":"one"})");
  EXPECT_EQ(all("one"), R"({"value":{}})");
  EXPECT_EQ(all("two"), R"({"value":{"k":2}})");
  EXPECT_THAT(problem("get", R"({"key":"k","namespace":""})"), HasSubstr("must be a text that is not empty"));
  EXPECT_THAT(store.namespaces(), ElementsAre("two"));
}

TEST_F(StateStoreTest, EveryMutationHasOneRevisionAndTellsBeforeAndAfter) {
  run("set", R"({"key":"k","value":1})");
  run("get", R"({"key":"k"})");
  run("set", R"({"key":"k","value":1})");
  run("update", R"({"values":{"k":2,"l":3}})");
  run("clear");
  const auto changes = store.take_changes();
  ASSERT_THAT(changes, SizeIs(4));
  EXPECT_EQ(to_event(changes[0]), R"({"revision":1,"time":1000000000,"namespace":"default","kind":"set",)"
                                  R"("by":"00000000000000010000000000000002","key":"k","after":1})");
  EXPECT_THAT(to_event(changes[1]), HasSubstr(R"("before":1,"after":1)"));
  EXPECT_THAT(to_event(changes[2]), HasSubstr(R"("keys":["k","l"],"before":{"k":1},"after":{"k":2,"l":3})"));
  EXPECT_THAT(to_event(changes[3]), HasSubstr(R"("before":{"k":2,"l":3},"after":{})"));
  EXPECT_EQ(store.revision(), 4u);
}

TEST_F(StateStoreTest, Z14_NumbersAndListsGrowAndRefuseWhatTheyAreNot) {
  EXPECT_EQ(run("increment", R"({"key":"n"})"), R"({"value":1})");
  EXPECT_EQ(run("increment", R"({"key":"n","by":41})"), R"({"value":42})");
  EXPECT_EQ(run("decrement", R"({"key":"n","by":2})"), R"({"value":40})");
  EXPECT_EQ(run("increment", R"({"key":"n","by":0.5})"), R"({"value":40.5})");
  run("set", R"({"key":"n","value":9223372036854775807})");
  EXPECT_EQ(run("increment", R"({"key":"n"})"), "refused: overflow");
  run("set", R"({"key":"n","value":18446744073709551615})");
  EXPECT_EQ(run("decrement", R"({"key":"n"})"), "refused: overflow");
  EXPECT_EQ(run("append", R"({"key":"l","value":"x"})"), R"({"value":1})");
  EXPECT_EQ(run("append", R"({"key":"l","value":[2]})"), R"({"value":2})");
  EXPECT_EQ(run("get", R"({"key":"l"})"), R"({"value":["x",[2]],"revision":8})");
  EXPECT_EQ(run("append", R"({"key":"n","value":1})"), "refused: wrong_type");
  EXPECT_THAT(problem("increment", R"({"key":"l"})"), HasSubstr("'l' is no number but array"));
}

TEST_F(StateStoreTest, APatchChangesPartsOfAValue) {  // RFC 7396, appendix A
  run("set", R"({"key":"k","value":{"title":"Goodbye!","author":{"given":"John","family":"Doe"},"tags":["a"]}})");
  EXPECT_EQ(run("merge_patch", R"({"key":"k","patch":{"title":"Hello!","author":{"family":null},"tags":["b"]}})"),
            R"({"value":{"author":{"given":"John"},"tags":["b"],"title":"Hello!"}})");
  EXPECT_EQ(run("merge_patch", R"({"key":"new","patch":{"a":1}})"), R"({"value":{"a":1}})");
}

TEST_F(StateStoreTest, CompareAndSetLooksAtValueOrRevision) {
  EXPECT_EQ(run("cas", R"({"key":"k","revision":0,"value":1})"), "{}");
  EXPECT_EQ(run("cas", R"({"key":"k","revision":0,"value":2})"), "refused: condition_failed");
  EXPECT_EQ(run("cas", R"({"key":"k","old":1,"value":2})"), "{}");
  EXPECT_EQ(run("cas", R"({"key":"k","old":1,"value":3})"), "refused: condition_failed");
  EXPECT_EQ(run("cas", R"({"key":"k","revision":2,"value":{"a":1,"b":2}})"), "{}");
  EXPECT_EQ(run("cas", R"({"key":"k","old":{"b":2,"a":1}})"), "{}") << "no value: deleted";
  EXPECT_EQ(run("has", R"({"key":"k"})"), R"({"value":false})");
}

TEST_F(StateStoreTest, ATransactionIsAllOrNothing) {
  run("set", R"({"key":"a","value":5})");
  EXPECT_EQ(run("txn", R"({"if":[{"key":"a","op":"greater","value":3},{"key":"b","op":"absent"}],
                           "then":[["set","b",1],["increment","a"],["get","a"]],"else":[["get","a"]]})"),
            R"({"succeeded":true,"results":[{},{"value":6},{"value":6,"revision":2}]})");
  EXPECT_EQ(run("txn", R"({"if":[{"key":"b","op":"absent"}],"then":[["clear"]],"else":[["get","a"]]})"),
            R"({"succeeded":false,"results":[{"value":6,"revision":2}]})");
  EXPECT_EQ(run("txn", R"({"then":[["set","c",1],["delete","a"],["increment","b","x"]]})"), "refused: bad_request");
  EXPECT_EQ(all(), R"({"value":{"a":6,"b":1}})") << "nothing of it happened";
  EXPECT_EQ(run("get", R"({"key":"a"})"), R"({"value":6,"revision":2})") << "nor a trace is left";
  EXPECT_EQ(store.revision(), 2u);
  EXPECT_EQ(run("txn", R"({"then":[["txn",{}]]})"), "refused: unknown_method") << "they do not nest";
  EXPECT_EQ(run("txn", R"({"then":[["set","x",1],["set","x",2],["delete","x"],["set","x",3]]})"),
            R"({"succeeded":true,"results":[{},{},{},{}]})");
  EXPECT_THAT(to_event(store.take_changes().back()), HasSubstr(R"("key":"x","after":3)")) << "one edit of one key";
}

TEST_F(StateStoreTest, ATransactionMayDependOnTheWholeNamespace) {
  run("set", R"({"key":"a","value":1})");
  run("set", R"({"key":"a","value":1,"namespace":"other"})");
  EXPECT_EQ(run("txn", R"({"unchanged_since":1,"then":[["set","b",1]]})"), R"({"succeeded":true,"results":[{}]})");
  EXPECT_EQ(run("txn", R"({"unchanged_since":1,"then":[["set","b",2]]})"), R"({"succeeded":false,"results":[]})");
  StateStore again;
  for (const Change& change : store.take_changes()) ASSERT_TRUE(again.replay(change));
  EXPECT_EQ(again.last_change("default"), 3u);
  StateStore restored;
  ASSERT_TRUE(restored.replay(SnapshotBegin{7}));
  EXPECT_EQ(restored.last_change("default"), 7u) << "what was deleted before left no trace";
}

TEST_F(StateStoreTest, KeysWithATimeToLiveExpire) {
  run("set", R"({"key":"short","value":1,"ttl_ms":100})");
  run("set", R"({"key":"long","value":1,"ttl_ms":10000})");
  EXPECT_EQ(store.due(), WallTime{now.ns + 100'000'000});
  store.expire({now.ns + 99'999'999});
  EXPECT_EQ(store.keys(), 2u);
  store.expire({now.ns + 100'000'000});
  EXPECT_EQ(run("keys"), R"({"value":["long"]})");
  const auto changes = store.take_changes();
  EXPECT_THAT(to_event(changes.back()), HasSubstr(R"("kind":"expire","key":"short","before":1})"));

  EXPECT_EQ(run("increment", R"({"key":"long"})"), R"({"value":2})");
  EXPECT_EQ(run("life", R"({"key":"long"})"), R"({"ttl_ms":10000,"session":null})") << "it keeps its life";
  run("set", R"({"key":"long","value":1})");
  EXPECT_EQ(run("life", R"({"key":"long"})"), R"({"ttl_ms":null,"session":null})") << "a new value has a new one";
  EXPECT_EQ(store.due(), std::nullopt);
  run("touch", R"({"key":"long","ttl_ms":5})");
  EXPECT_NE(store.due(), std::nullopt);
}

TEST_F(StateStoreTest, KeysOfASessionGoWithIt) {
  const SessionId session{7, 7};
  const std::string id = to_string(session);
  EXPECT_EQ(run("set", R"({"key":"k","value":1,"session":")" + id + R"("})"), "refused: session_unknown");
  store.open_session(session, 5000);
  run("set", R"({"key":"k","value":1,"session":")" + id + R"("})");
  run("set", R"({"key":"l","value":1,"session":")" + id + R"(","namespace":"other"})");
  run("set", R"({"key":"m","value":1})");
  EXPECT_THAT(store.sessions_with_keys(), ElementsAre(testing::Pair(session, 5000u)));
  store.take_changes();
  store.close_session(session, now);
  EXPECT_THAT(store.take_changes(), SizeIs(2));
  EXPECT_EQ(all(), R"({"value":{"m":1}})");
  EXPECT_EQ(all("other"), R"({"value":{}})");
  EXPECT_THAT(store.sessions_with_keys(), IsEmpty());
}

TEST_F(StateStoreTest, BadRequestsAreRefusedAndChangeNothing) {
  run("set", R"({"key":"k","value":"v"})");
  const struct {
    const char* operation;
    std::string arguments;
    const char* type;
  } kBad[] = {{"nonsense", "{}", "unknown_method"},
              {"set", "", "bad_request"},
              {"set", "[]", "bad_request"},
              {"set", "{", "bad_request"},
              {"set", R"({"key":"","value":1})", "bad_request"},
              {"set", R"({"key":1,"value":1})", "bad_request"},
              {"set", R"({"key":"k"})", "bad_request"},
              {"set", R"({"key":"k","value":NaN})", "bad_request"},
              {"set", R"({"key":"k","value":1e999})", "bad_request"},
              {"set", "{\"key\":\"k\",\"value\":\"\xff\"}", "bad_request"},
              {"set", R"({"key":"k","value":)" + std::string(200, '[') + std::string(200, ']') + "}", "bad_request"},
              {"set", R"({"key":")" + std::string(5000, 'k') + R"(","value":1})", "too_large"},
              {"set", R"({"key":"k","value":1,"ttl_ms":0})", "bad_request"},
              {"set", R"({"key":"k","value":1,"ttl_ms":-5})", "bad_request"},
              {"set", R"({"key":"k","value":1,"namespace":""})", "bad_request"},
              {"set", R"({"key":"k","value":1,"namespace":")" + std::string(300, 'n') + R"("})", "too_large"},
              {"update", R"({"values":[1]})", "bad_request"},
              {"update", R"({"values":{"":1}})", "bad_request"},
              {"increment", R"({"key":"k","by":"1"})", "bad_request"},
              {"increment", R"({"key":"k"})", "wrong_type"},
              {"cas", R"({"key":"k"})", "bad_request"},
              {"txn", R"({"if":[{"key":"k","op":"is"}]})", "bad_request"},
              {"txn", R"({"then":[["set"]]})", "bad_request"},
              {"txn", R"({"then":[1]})", "bad_request"},
              {"keys", R"({"prefix":1})", "bad_request"}};
  for (const auto& bad : kBad) {
    EXPECT_EQ(run(bad.operation, bad.arguments), std::string("refused: ") + bad.type)
        << bad.operation << " " << bad.arguments.substr(0, 100);
    EXPECT_NE(problem(bad.operation, bad.arguments), "");
  }
  EXPECT_EQ(all(), R"({"value":{"k":"v"}})");
  EXPECT_EQ(store.revision(), 1u);
  StateStore small({.max_value_bytes = 10});
  EXPECT_EQ(small.apply("set", R"({"key":"k","value":"01234567"})", kMe, now).has_value(), true);
  EXPECT_EQ(small.apply("set", R"({"key":"k","value":"012345678"})", kMe, now).error().type, "too_large");
  EXPECT_EQ(small.apply("append", R"({"key":"l","value":"0123456"})", kMe, now).error().type, "too_large");
}

TEST_F(StateStoreTest, WhatCouldNotBeMadeDurableIsTakenBack) {
  run("set", R"({"key":"a","value":1})");
  run("set", R"({"key":"b","value":1,"ttl_ms":1000})");
  store.take_changes();
  run("increment", R"({"key":"a"})");
  run("delete", R"({"key":"b"})");
  run("update", R"({"values":{"a":7,"c":8}})");
  store.undo(store.take_changes());
  EXPECT_EQ(all(), R"({"value":{"a":1,"b":1}})");
  EXPECT_EQ(run("get", R"({"key":"a"})"), R"({"value":1,"revision":1})");
  EXPECT_EQ(store.due(), WallTime{now.ns + 1'000'000'000});
  EXPECT_EQ(store.revision(), 2u);
}

/// Random operations on keys of one namespace, as JSON.
std::pair<std::string, std::string> random_operation(test::Chance& chance) {
  static const std::vector<std::string> kKeys = {"a", "b", "c", "dd", "e\"\\"};
  const std::string key = json_string(kKeys[chance.between(std::size_t{0}, kKeys.size() - 1)]);
  const std::string value = std::to_string(chance.between(std::size_t{0}, std::size_t{9}));
  switch (chance.between(std::size_t{0}, std::size_t{11})) {
    case 0:
    case 1: return {"set", R"({"key":)" + key + R"(,"value":)" + value + "}"};
    case 2: return {"delete", R"({"key":)" + key + "}"};
    case 3: return {"setdefault", R"({"key":)" + key + R"(,"value":)" + value + "}"};
    case 4: return {"pop", R"({"key":)" + key + "}"};
    case 5: return {"popitem", "{}"};
    case 6: return {"update", R"({"values":{"a":)" + value + R"(,"z":)" + value + "}}"};
    case 7: return {"increment", R"({"key":)" + key + R"(,"by":)" + value + "}"};
    case 8: return {"get", R"({"key":)" + key + "}"};
    case 9: return {"cas", R"({"key":)" + key + R"(,"old":)" + value + R"(,"value":)" + value + "}"};
    case 10: return {"txn", R"({"then":[["set",)" + key + "," + value + R"(],["delete","b"]]})"};
    default: return chance.with(0.1) ? std::pair{"clear", "{}"} : std::pair{"size", "{}"};
  }
}

TEST(StateStoreModelTest, Z2_RandomOperationsDoWhatAMapDoes) {
  for (const std::uint64_t seed : test::seeds(20)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance chance(seed);
    StateStore store;
    std::map<std::string, Json> model;
    for (int i = 0; i < 500; ++i) {
      const auto [operation, arguments] = random_operation(chance);
      const Json a = Json::parse(arguments);
      const auto result = store.apply(operation, arguments, kMe, {1});
      const std::string key = a.value("key", "");
      const bool present = model.contains(key);
      bool expected = true;
      if (operation == "set") model[key] = a["value"];
      if (operation == "delete" || operation == "pop") expected = model.erase(key) > 0;
      if (operation == "setdefault") model.try_emplace(key, a["value"]);
      if (operation == "get") expected = present;
      if (operation == "increment")
        model[key] = model.try_emplace(key, 0).first->second.get<int>() + a["by"].get<int>();
      if (operation == "clear") model.clear();
      if (operation == "cas") {
        expected = present && model[key] == a["old"];
        if (expected) model[key] = a["value"];
      }
      if (operation == "popitem") {
        expected = !model.empty();
        if (expected) model.erase(std::prev(model.end()));
      }
      if (operation == "update") {
        for (const auto& [k, v] : a["values"].items()) model[k] = v;
      }
      if (operation == "txn") {
        const std::string first = a["then"][0][1];
        expected = model.contains("b") || first == "b";
        if (expected) {
          model[first] = a["then"][0][2];
          model.erase("b");
        }
      }
      ASSERT_EQ(result.has_value(), expected) << operation << " " << arguments;
      ASSERT_EQ(Json::parse(*store.apply("items", "{}", kMe, {1}))["value"], Json(model)) << operation << arguments;
    }
  }
}

TEST(StateStoreModelTest, ReplayingTheJournalGivesTheSameStoreWhereverItWasCut) {
  for (const std::uint64_t seed : test::seeds(10)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance chance(seed);
    StateStore store;
    std::vector<std::string> lines;
    std::vector<std::string> states;
    const auto state_of = [](StateStore& s) { return *s.apply("items", "{}", kMe, {1}); };
    for (int i = 0; i < 200; ++i) {
      const auto [operation, arguments] = random_operation(chance);
      (void)store.apply(operation, arguments, kMe, {i});
      for (const Change& change : store.take_changes()) {
        lines.push_back(to_line(change));
        states.push_back(state_of(store));
      }
    }
    StateStore again;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const auto record = parse_line(std::string_view(lines[i]).substr(0, lines[i].size() - 1));
      ASSERT_TRUE(record) << record.error().context << lines[i];
      ASSERT_EQ(to_line(*record), lines[i]);
      ASSERT_TRUE(again.replay(*record));
      ASSERT_EQ(state_of(again), states[i]);
    }
    EXPECT_EQ(again.revision(), store.revision());
    if (!lines.empty()) {
      const auto first = parse_line(std::string_view(lines[0]).substr(0, lines[0].size() - 1));
      EXPECT_FALSE(again.replay(*first)) << "a revision that does not follow is noticed";
    }
  }
}

/// Through its line.
JournalRecord read_back(const EntryView& entry) {
  std::string line;
  append_line(line, entry);
  EXPECT_TRUE(line.ends_with('\n'));
  line.pop_back();
  const auto record = parse_line(line);
  return record ? *record : throw std::runtime_error(record.error().context + ": " + line);
}

TEST(EntryLineTest, EveryEntryIsReadAsItWasWritten) {
  const std::vector<std::string> texts = {
      "plain", "a \"b\" c", "back\\slash", "n\nl", "\xc3\xa4", R"(x","value":1,"revision":2})", R"("kind":"entry")"};
  const std::vector<std::string> values = {"1", "\"text\"", R"({"a":",\"revision\":7}","revision":8})", "[]", "null"};
  const Life limited{{5}, SessionId{1, 2}, 1000};
  for (const auto& name_space : texts) {
    for (const auto& key : texts) {
      for (const auto& value : values) {
        for (const Life& life : {Life{}, limited}) {
          const SnapshotEntry expected{name_space, key, value, 18446744073709551615U, life};
          const auto record = read_back({name_space, key, value, expected.revision, life});
          ASSERT_TRUE(std::holds_alternative<SnapshotEntry>(record)) << key << value;
          EXPECT_EQ(std::get<SnapshotEntry>(record), expected);
        }
      }
    }
  }
}

TEST(StateStoreModelTest, ASnapshotTakenInPiecesWhileThingsChangeCompletesToTheSameStore) {
  for (const std::uint64_t seed : test::seeds(20)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance chance(seed);
    StateStore store;
    for (int i = 0; i < 100; ++i) {
      const auto [operation, arguments] = random_operation(chance);
      (void)store.apply(operation, arguments, kMe, {i});
    }
    store.take_changes();
    std::vector<JournalRecord> journal = {SnapshotBegin{store.revision()}};
    std::vector<Change> meanwhile;
    std::string name_space;
    std::string key;
    for (bool more = true; more;) {
      more = false;
      store.scan_after(name_space, key, [&](const EntryView& entry) {
        journal.emplace_back(read_back(entry));
        name_space = entry.name_space;
        key = entry.key;
        more = true;
        return false;  // one at a time
      });
      const auto [operation, arguments] = random_operation(chance);
      (void)store.apply(operation, arguments, kMe, {1});
      for (Change& change : store.take_changes()) meanwhile.push_back(std::move(change));
    }
    for (Change& change : meanwhile) journal.emplace_back(std::move(change));
    StateStore again;
    for (const JournalRecord& record : journal) ASSERT_TRUE(again.replay(record));
    EXPECT_EQ(*again.apply("items", "{}", kMe, {1}), *store.apply("items", "{}", kMe, {1}));
    EXPECT_EQ(again.revision(), store.revision());
  }
}

TEST(JournalLineTest, EveryFlippedBitAndEveryShorterLineIsNoticed) {
  Change change{7, {8}, "n", "txn", kMe, {}};
  change.edits.push_back({"a", "1", std::nullopt, {}, {}, 0});
  change.edits.push_back({"b", std::nullopt, "[2]", {{99}, {1, 1}, 7}, {}, 0});
  std::string line = to_line(change);
  line.pop_back();
  ASSERT_EQ(std::get<Change>(*parse_line(line)), change);
  for (std::size_t n = 0; n < line.size(); ++n) EXPECT_FALSE(parse_line(std::string_view(line).substr(0, n))) << n;
  for (std::size_t bit = 0; bit < 8 * line.size(); ++bit) {
    line[bit / 8] = static_cast<char>(line[bit / 8] ^ (1 << (bit % 8)));
    const auto damaged = parse_line(line);
    // The sum itself may be written in capitals.
    if (damaged) {
      EXPECT_EQ(std::get<Change>(*damaged), change) << bit;
    }
    line[bit / 8] = static_cast<char>(line[bit / 8] ^ (1 << (bit % 8)));
  }
}

}  // namespace
}  // namespace fantail::state
