#include "producer/registry.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "common/storage/database.h"
#include "tests/support/scratch_directory.h"

namespace fantail {
namespace {

class RegistryTest : public testing::Test {
 protected:
  RegistryTest() { reopen(); }
  void reopen() {
    registry.reset();
    state.reset();
    state.emplace(*StateDirectory::open(scratch.path()));
    auto opened = Registry::open(*state, opening = {});
    error = opened ? std::optional<Error>() : opened.error();
    if (opened) registry.emplace(std::move(*opened));
  }
  StreamRecord record(std::uint64_t n) {
    StreamRecord r;
    r.info.stream = {UINT64_MAX - n, n};
    r.info.sequence = registry->next_sequence();
    r.info.topic = "web/access";
    r.info.path = "/log/\xFF name " + std::to_string(n);
    r.info.base = {n};
    r.info.head = {1000 + n};
    r.info.first_seen = {-5};
    r.current_path = r.info.path + ".1";
    r.key = {UINT64_MAX, UINT64_MAX - n};
    r.fingerprint = {{500 + n}, 500, UINT64_MAX, UINT64_MAX / 2 + 1};
    return r;
  }
  static std::string told(const StreamRecord& r) {
    return to_string(r.info.stream) + " " + std::to_string(r.info.sequence) + " " + r.info.topic + " " + r.info.path +
           " " + r.current_path + " " + std::to_string(r.key.device) + ":" + std::to_string(r.key.inode) + " " +
           std::to_string(r.info.base.raw) + "," + std::to_string(r.fingerprint.cursor.raw) + "," +
           std::to_string(r.info.head.raw) + " " + std::to_string(r.fingerprint.head_length) + " " +
           std::to_string(r.fingerprint.head_digest) + " " + std::to_string(r.fingerprint.tail_digest) + " " +
           std::to_string(r.info.first_seen.ns) + (r.info.sealed ? " sealed" : "") +
           (r.gone ? " gone " + std::to_string(static_cast<int>(*r.gone)) : "");
  }
  std::vector<std::string> streams() {
    std::vector<std::string> out;
    const auto loaded = registry->load_streams();
    for (const auto& r : loaded.value()) out.push_back(told(r));
    return out;
  }

  test::ScratchDirectory scratch;
  std::optional<StateDirectory> state;
  std::optional<Registry> registry;
  std::optional<Error> error;
  Registry::Opening opening;
};

using testing::ElementsAre;
using testing::IsEmpty;

TEST_F(RegistryTest, TheNodeKeepsItsId) {
  const NodeId id = registry->node();
  EXPECT_TRUE(id);
  reopen();
  EXPECT_EQ(registry->node(), id);
}

TEST_F(RegistryTest, StreamsComeBackAsTheyWere) {
  const StreamRecord a = record(1);
  const StreamRecord b = record(2);
  ASSERT_TRUE(registry->insert({a, b}));
  reopen();
  EXPECT_THAT(streams(), ElementsAre(told(a), told(b)));
}

TEST_F(RegistryTest, WhatChangedIsSavedTogetherWithCommits) {
  StreamRecord a = record(1);
  ASSERT_TRUE(registry->insert({a}));
  a.current_path = "/elsewhere";
  a.fingerprint = {{999}, 999, 1, 2};
  a.info.head = {999};
  a.info.sealed = true;
  a.gone = wire::LossReason::kUnknown;
  ASSERT_TRUE(registry->save_consumer("c", {{"web", "mail"}, 1, 3}));
  ASSERT_TRUE(registry->save({a}, {{{"c", a.info.stream}, {777}}}));
  reopen();
  EXPECT_THAT(streams(), ElementsAre(told(a)));
  CommitLedger ledger;
  ASSERT_TRUE(registry->load_consumers(ledger));
  EXPECT_EQ(ledger.position("c", a.info.stream), FileOffset{777});
  EXPECT_EQ(ledger.consumers().at("c").interest, (Interest{{"web", "mail"}, 1, 3}));
  EXPECT_FALSE(ledger.consumers().at("c").connected);
}

TEST_F(RegistryTest, WhereAnArchiveMayBeReadOnFromIsKept) {
  StreamRecord a = record(1);
  const StreamRecord plain = record(2);
  a.archive = ArchiveMark{};
  const auto marks = [&] {
    std::vector<std::optional<ArchiveMark>> out;
    const auto loaded = registry->load_streams();
    for (const StreamRecord& r : *loaded) out.push_back(r.archive);
    return out;
  };
  ASSERT_TRUE(registry->insert({a, plain}));
  reopen();
  EXPECT_THAT(marks(), ElementsAre(ArchiveMark{}, std::nullopt));
  a.archive = ArchiveMark{5'000'000'000, {60'000'000'000}, ~std::uint64_t{0}, 7};
  ASSERT_TRUE(registry->save({a}, {}));
  reopen();
  EXPECT_THAT(marks(), ElementsAre(a.archive, std::nullopt));
  ASSERT_TRUE(registry->remove_streams({a.info.stream}));
  EXPECT_THAT(marks(), ElementsAre(std::nullopt));
}

TEST_F(RegistryTest, AConsumerOfAllTopicsStaysOne) {
  ASSERT_TRUE(registry->save_consumer("c", {}));
  reopen();
  CommitLedger ledger;
  ASSERT_TRUE(registry->load_consumers(ledger));
  EXPECT_EQ(ledger.consumers().at("c").interest, Interest{});
}

TEST_F(RegistryTest, ASequenceIsNeverUsedTwiceEvenWhenItsStreamIsForgotten) {
  const StreamRecord a = record(1);
  const StreamRecord b = record(2);
  ASSERT_TRUE(registry->insert({a, b}));
  ASSERT_TRUE(registry->remove_streams({a.info.stream, b.info.stream}));
  reopen();
  EXPECT_THAT(streams(), IsEmpty());
  EXPECT_EQ(registry->next_sequence(), 3U);
}

TEST_F(RegistryTest, RemovingAStreamForgetsItsCommits) {
  const StreamRecord a = record(1);
  ASSERT_TRUE(registry->insert({a}));
  ASSERT_TRUE(registry->save_consumer("c", {}));
  ASSERT_TRUE(registry->save({}, {{{"c", a.info.stream}, {777}}}));
  ASSERT_TRUE(registry->remove_streams({a.info.stream}));
  reopen();
  CommitLedger ledger;
  ASSERT_TRUE(registry->load_consumers(ledger));
  EXPECT_EQ(ledger.position("c", a.info.stream), std::nullopt);
}

TEST_F(RegistryTest, AForgottenConsumerIsGone) {
  ASSERT_TRUE(registry->save_consumer("c", {}));
  ASSERT_TRUE(registry->forget_consumer("c"));
  reopen();
  CommitLedger ledger;
  ASSERT_TRUE(registry->load_consumers(ledger));
  EXPECT_THAT(ledger.consumers(), IsEmpty());
}

TEST_F(RegistryTest, ForHowLongConsumersAreAwayIsKept) {
  ASSERT_TRUE(registry->save_consumer("c", {}));
  CommitLedger ledger;
  ledger.seen("c", {}, {}, true);
  ledger.disconnected("c", {77});
  ASSERT_TRUE(registry->save_absences({{"c", 90min}, {"d", 1ms}}, ledger));
  reopen();
  EXPECT_EQ(registry->load_absences().value(), (std::map<std::string, Duration>{{"c", 90min}, {"d", 1ms}}));
  CommitLedger loaded;
  ASSERT_TRUE(registry->load_consumers(loaded));
  EXPECT_EQ(loaded.consumers().at("c").last_seen, WallTime{77});
  ASSERT_TRUE(registry->forget_consumer("c"));
  EXPECT_FALSE(registry->load_absences()->contains("c"));
}

TEST_F(RegistryTest, ARegistryFromBeforeAbsencesWereKeptOpens) {
  const StreamRecord a = record(1);
  ASSERT_TRUE(registry->insert({a}));
  registry.reset();
  ASSERT_TRUE(Database::open(scratch / "registry.db")->execute("DROP TABLE absences"));
  reopen();
  EXPECT_THAT(streams(), ElementsAre(told(a)));
  EXPECT_THAT(registry->load_absences().value(), IsEmpty());
}

TEST_F(RegistryTest, ACommandOpensOnlyWhatIsThere) {
  const auto missing = Registry::open_existing(scratch / "nowhere");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(scratch / "nowhere"));
  const StreamRecord a = record(1);
  ASSERT_TRUE(registry->insert({a}));
  auto beside = Registry::open_existing(scratch.path());
  ASSERT_TRUE(beside) << beside.error().context;
  EXPECT_EQ(beside->load_streams()->size(), 1U) << "while the producer has it open";
}

TEST_F(RegistryTest, OneBadRowOfAnInsertLeavesNoneOfIt) {
  const StreamRecord a = record(1);
  ASSERT_TRUE(registry->insert({a}));
  EXPECT_FALSE(registry->insert({record(2), a}));
  EXPECT_EQ(streams().size(), 1U);
  ASSERT_TRUE(registry->insert({record(3)})) << "and it can be used on";
}

TEST_F(RegistryTest, TheFirstStartIsANewNodeAndNothingIsLost) {
  EXPECT_TRUE(opening.new_node);
  EXPECT_FALSE(opening.lost);
  EXPECT_FALSE(registry->rebuilding());
  reopen();
  EXPECT_FALSE(opening.new_node);
  EXPECT_FALSE(opening.lost);
}

TEST_F(RegistryTest, ThereIsOneVeryFirstStart) {
  EXPECT_FALSE(registry->started());
  reopen();
  EXPECT_FALSE(registry->started());
  ASSERT_TRUE(registry->set_started());
  EXPECT_TRUE(registry->started());
  reopen();
  EXPECT_TRUE(registry->started());
}

TEST_F(RegistryTest, OneThatWasLostHasBeenStarted) {
  for (const bool with_node_id : {true, false}) {
    registry.reset();
    test::rewrite(scratch / "registry.db", std::string(10'000, 'x'));
    std::filesystem::remove(scratch / "registry.db-wal");
    if (!with_node_id) std::filesystem::remove(scratch / "node");
    reopen();
    ASSERT_FALSE(error) << error->context;
    ASSERT_EQ(registry->rebuilding(), with_node_id);
    if (with_node_id) {
      ASSERT_TRUE(registry->finish_rebuilding({}, 0));
    }
    EXPECT_TRUE(registry->started()) << with_node_id;
    reopen();
    EXPECT_TRUE(registry->started()) << with_node_id;
  }
}

TEST_F(RegistryTest, ADamagedFileIsSetAsideAndRebuiltUnderTheSameNodeId) {
  for (const std::size_t bytes : {10'000, 100, 1}) {
    ASSERT_TRUE(registry->finish_rebuilding({record(1)}, 0));
    const NodeId before = registry->node();
    registry.reset();
    std::filesystem::remove(scratch / "registry.db-wal");
    test::rewrite(scratch / "registry.db", std::string(bytes, 'x'));
    reopen();
    ASSERT_FALSE(error) << error->context;
    EXPECT_TRUE(opening.lost);
    EXPECT_FALSE(opening.new_node);
    EXPECT_THAT(opening.set_aside, testing::HasSubstr("registry.db.damaged-"));
    EXPECT_EQ(test::contents(opening.set_aside), std::string(bytes, 'x'));
    EXPECT_EQ(registry->node(), before);
    EXPECT_TRUE(registry->rebuilding());
    EXPECT_THAT(streams(), IsEmpty());
  }
}

TEST_F(RegistryTest, OneThatIsGoneOrEmptyIsRebuiltToo) {
  const NodeId before = registry->node();
  for (const bool gone : {true, false}) {
    ASSERT_TRUE(registry->finish_rebuilding({record(1)}, 0));
    registry.reset();
    std::filesystem::remove(scratch / "registry.db");
    if (!gone) test::rewrite(scratch / "registry.db", "");
    reopen();
    ASSERT_FALSE(error) << error->context;
    EXPECT_TRUE(opening.lost) << gone;
    EXPECT_EQ(registry->node(), before) << gone;
    EXPECT_TRUE(registry->rebuilding()) << gone;
    EXPECT_THAT(streams(), IsEmpty()) << gone;
  }
}

TEST_F(RegistryTest, OneWhoseRowsCannotBeReadIsDamaged) {
  ASSERT_TRUE(registry->insert({record(1)}));
  registry.reset();
  ASSERT_TRUE(Database::open(scratch / "registry.db")->execute("UPDATE streams SET stream='who knows'"));
  reopen();
  ASSERT_FALSE(error) << error->context;
  EXPECT_TRUE(opening.lost);
  EXPECT_NE(opening.set_aside, "");
}

TEST_F(RegistryTest, OneWhoseTablesHaveAnotherFormIsDamaged) {
  for (const char* change : {"ALTER TABLE meta RENAME COLUMN value TO worth", "ALTER TABLE streams DROP COLUMN gone"}) {
    ASSERT_TRUE(registry->finish_rebuilding({}, 0));
    registry.reset();
    ASSERT_TRUE(Database::open(scratch / "registry.db")->execute(change));
    reopen();
    ASSERT_FALSE(error) << change << ": " << error->context;
    EXPECT_TRUE(opening.lost) << change;
    EXPECT_TRUE(registry->rebuilding()) << change;
  }
}

TEST_F(RegistryTest, ItStaysToBeRebuiltUntilThatIsDone) {
  registry.reset();
  std::filesystem::remove(scratch / "registry.db");
  reopen();
  reopen();
  EXPECT_FALSE(opening.lost) << "not a second time";
  ASSERT_TRUE(registry->rebuilding());
  StreamRecord a = record(1);
  a.info.sequence = 7;
  ASSERT_TRUE(registry->finish_rebuilding({a}, 9));
  EXPECT_FALSE(registry->rebuilding());
  reopen();
  EXPECT_FALSE(registry->rebuilding());
  EXPECT_THAT(streams(), ElementsAre(told(a)));
  EXPECT_EQ(registry->next_sequence(), 10U) << "9 was seen by somebody";
}

TEST_F(RegistryTest, StreamsThatCannotBeTakenInLeaveItToBeRebuilt) {
  registry.reset();
  std::filesystem::remove(scratch / "registry.db");
  reopen();
  const StreamRecord a = record(1);
  EXPECT_FALSE(registry->finish_rebuilding({a, a}, 9));
  reopen();
  EXPECT_TRUE(registry->rebuilding());
  EXPECT_THAT(streams(), IsEmpty());
}

TEST_F(RegistryTest, AnIntactRegistryGivesBackALostNodeId) {
  ASSERT_TRUE(registry->insert({record(1)}));
  const NodeId before = registry->node();
  for (const char* damage : {"", "junk", "ffff", "0123456789abcdef0123456789abcdef"}) {
    std::filesystem::remove(scratch / "node");
    if (*damage != '\0') test::rewrite(scratch / "node", damage);
    reopen();
    EXPECT_EQ(registry->node(), before);
    EXPECT_FALSE(opening.new_node);
    EXPECT_FALSE(registry->rebuilding());
    EXPECT_EQ(test::contents(scratch / "node"), to_string(before) + "\n");
  }
  EXPECT_EQ(streams().size(), 1U);
}

TEST_F(RegistryTest, WithoutRegistryAndNodeIdItIsANewNodeWithNothingToRebuild) {
  const NodeId before = registry->node();
  registry.reset();
  test::rewrite(scratch / "registry.db", std::string(10'000, 'x'));
  std::filesystem::remove(scratch / "registry.db-wal");
  test::rewrite(scratch / "node", "junk");
  reopen();
  ASSERT_FALSE(error) << error->context;
  EXPECT_TRUE(opening.lost);
  EXPECT_TRUE(opening.new_node);
  EXPECT_NE(registry->node(), before);
  EXPECT_FALSE(registry->rebuilding());
  EXPECT_EQ(test::contents(scratch / "node"), to_string(registry->node()) + "\n");
}

TEST_F(RegistryTest, AnotherSchemaVersionIsRefusedAndLeftAlone) {
  ASSERT_TRUE(registry->insert({record(1)}));
  registry.reset();
  ASSERT_TRUE(Database::open(scratch / "registry.db")->execute("UPDATE meta SET value='99' WHERE key='schema'"));
  reopen();
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kUnsupported);
  EXPECT_THAT(error->context, testing::HasSubstr("99"));
  EXPECT_EQ(opening.set_aside, "");
  EXPECT_TRUE(std::filesystem::exists(scratch / "registry.db"));
}

}  // namespace
}  // namespace fantail
