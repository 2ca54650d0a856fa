#include "consumer/cursor_store.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "tests/support/scratch_directory.h"

namespace fantail {
namespace {

constexpr StreamId kStream{UINT64_MAX, 1};

class CursorStoreTest : public testing::Test {
 protected:
  CursorStoreTest() { reopen(); }
  void reopen() {
    store.reset();
    state.reset();
    state.emplace(*StateDirectory::open(scratch.path()));
    auto opened = CursorStore::open(*state, set_aside);
    error = opened ? std::optional<Error>() : opened.error();
    if (opened) store.emplace(std::move(*opened));
  }

  test::ScratchDirectory scratch;
  std::optional<StateDirectory> state;
  std::optional<CursorStore> store;
  std::optional<Error> error;
  std::string set_aside;
};

TEST_F(CursorStoreTest, TheConsumerKeepsItsId) {
  const NodeId id = store->id();
  EXPECT_TRUE(id);
  reopen();
  EXPECT_EQ(store->id(), id);
}

TEST_F(CursorStoreTest, CursorsAndLengthsComeBackTogether) {
  ASSERT_TRUE(store->save({{"mirror:/a", {{kStream, {100}}}, {}}, {"file:/b", {{kStream, {90}}}, {{"/b", 77}}}}, {}));
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(store->cursor("mirror:/a", kStream), FileOffset{100});
    EXPECT_EQ(store->cursor("file:/b", kStream), FileOffset{90});
    ASSERT_TRUE(store->outputs("file:/b").contains("/b"));
    EXPECT_EQ(store->outputs("file:/b").at("/b").length, 77U);
    EXPECT_EQ(store->cursor("mirror:/other", kStream), std::nullopt);
    EXPECT_FALSE(store->outputs("file:/b").contains("/c"));
    EXPECT_TRUE(store->outputs("file:/c").empty());
    reopen();
  }
}

TEST_F(CursorStoreTest, AFileThatIsToBeRenamedComesBackUntilItIsGone) {
  ASSERT_TRUE(store->save({{"file:/b", {}, {{"/b", 77, {-5}, "/b.1"}, {"/c", 1}}}}, {}));
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(store->outputs("file:/b").at("/b").rotated_to, "/b.1");
    EXPECT_EQ(store->outputs("file:/b").at("/b").began, WallTime{-5});
    reopen();
  }
  ASSERT_TRUE(store->save({{"file:/b", {}, {{.path = "/b", .gone = true}}}}, {}));
  for (int i = 0; i < 2; ++i) {
    EXPECT_FALSE(store->outputs("file:/b").contains("/b"));
    EXPECT_TRUE(store->outputs("file:/b").contains("/c"));
    reopen();
  }
}

TEST_F(CursorStoreTest, AStoreOfBeforeFilesWereRotatedIsTaken) {
  store.reset();
  ASSERT_TRUE(Database::open(scratch / "cursors.db")
                  ->execute("DROP TABLE outputs; CREATE TABLE outputs (sink TEXT NOT NULL, path TEXT NOT NULL, "
                            "length INTEGER NOT NULL, PRIMARY KEY (sink, path)) WITHOUT ROWID;"
                            "INSERT INTO outputs VALUES ('file:/b', '/b', 77)"));
  for (int i = 0; i < 2; ++i) {
    reopen();
    ASSERT_FALSE(error) << error->context;
    EXPECT_EQ(store->outputs("file:/b").at("/b").length, 77U);
    EXPECT_EQ(store->outputs("file:/b").at("/b").rotated_to, "");
  }
}

TEST_F(CursorStoreTest, MirrorsComeBack) {
  const CursorStore::MirrorRow row{"node/log/\xFF", "node/log/\xFF@x", 7, {-1}};
  ASSERT_TRUE(store->save_mirrors("mirror:/a", {{kStream, row}}));
  reopen();
  const auto mirrors = store->mirrors("mirror:/a");
  ASSERT_EQ(mirrors.size(), 1U);
  EXPECT_EQ(mirrors.at(kStream).path, row.path);
  EXPECT_EQ(mirrors.at(kStream).file, row.file);
  EXPECT_EQ(mirrors.at(kStream).sequence, 7U);
  EXPECT_EQ(mirrors.at(kStream).first_seen, WallTime{-1});
}

TEST_F(CursorStoreTest, ANodeKeepsItsDirectoryWhateverItCallsItselfLater) {
  EXPECT_EQ(store->node({1, 1}, "host")->directory, "host");
  reopen();
  EXPECT_EQ(store->node({1, 1}, "renamed")->directory, "host");
}

TEST_F(CursorStoreTest, TwoNodesOfOneNameHaveTwoDirectories) {
  const std::string first = store->node({1, 1}, "host")->directory;
  const std::string second = store->node({2, 2}, "host")->directory;
  EXPECT_NE(first, second);
}

TEST_F(CursorStoreTest, HostileNodeNamesAreOneHarmlessComponent) {
  std::uint64_t n = 0;
  for (const char* name : {"", ".", "..", "../../etc", "/", "a/b", ".hidden", "new\nline"}) {
    const std::string directory = store->node({++n, n}, name)->directory;
    EXPECT_FALSE(directory.empty());
    EXPECT_EQ(directory.find_first_of("/\n"), std::string::npos) << directory;
    EXPECT_NE(directory.front(), '.') << directory;
  }
  EXPECT_LE(store->node({++n, n}, std::string(255, 'x'))->directory.size(), 255U);
  EXPECT_LE(store->node({++n, n}, std::string(255, 'x'))->directory.size(), 255U);
}

TEST_F(CursorStoreTest, TheNewestKnownStreamOfANodeIsRemembered) {
  ASSERT_TRUE(store->node({1, 1}, "host"));
  ASSERT_TRUE(store->save({}, {{NodeId{1, 1}, 42}}));
  reopen();
  EXPECT_EQ(store->node({1, 1}, "host")->known_sequence, 42U);
}

TEST_F(CursorStoreTest, LossesAreKept) {
  StreamMeta meta;
  meta.stream = kStream;
  meta.node_name = "host";
  meta.path = "/log/a";
  ASSERT_TRUE(store->record_loss({meta, {{10}, {20}}, wire::LossReason::kDeleted}));
  ASSERT_TRUE(store->record_loss({meta, {{10}, {20}}, wire::LossReason::kDeleted})) << "told again after a crash";
  store.reset();
  auto database = Database::open(scratch / "cursors.db");
  auto rows = database->prepare("SELECT start, stop, path FROM losses");
  ASSERT_TRUE(rows->step().value());
  EXPECT_EQ(rows->integer(0), 10);
  EXPECT_EQ(rows->integer(1), 20);
  EXPECT_EQ(rows->text(2), "/log/a");
  EXPECT_FALSE(rows->step().value());
}

TEST_F(CursorStoreTest, LossesComeBackAndTheOldestOfTooManyAreCounted) {
  StreamMeta meta;
  meta.stream = kStream;
  meta.node_name = "host";
  meta.topic = "web";
  meta.path = "/log/a";
  ASSERT_TRUE(store->record_loss({meta, {{10}, {20}}, wire::LossReason::kDeleted}));
  ASSERT_EQ(store->losses()->size(), 1U);
  const CursorStore::LossRow loss = store->losses()->front();
  EXPECT_EQ(loss.stream, kStream);
  EXPECT_EQ(loss.node + " " + loss.topic + " " + loss.path, "host web /log/a");
  EXPECT_EQ(loss.range, (ByteRange{{10}, {20}}));
  EXPECT_EQ(loss.reason, "deleted before it was delivered");
  ASSERT_TRUE(Database::open(scratch / "cursors.db")
                  ->execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < " +
                            std::to_string(CursorStore::kMaxLosses) + ") INSERT INTO losses SELECT 0, '" +
                            to_string(kStream) + "', 'host', 'web', '/log/a', 100 * i, 100 * i + 1, 'deleted' FROM n"));
  EXPECT_EQ(store->dropped_losses(), 0);
  ASSERT_TRUE(store->record_loss({meta, {{30}, {40}}, wire::LossReason::kDeleted}));
  reopen();
  EXPECT_EQ(store->dropped_losses(), 2);
  const auto kept = store->losses();
  EXPECT_EQ(kept->size(), static_cast<std::size_t>(CursorStore::kMaxLosses));
  EXPECT_EQ(kept->back().range, (ByteRange{{30}, {40}}));
  EXPECT_EQ(kept->front().range.from, FileOffset{200});
}

TEST_F(CursorStoreTest, CursorsBehindAnOffsetArePutBackAndOthersStay) {
  constexpr StreamId kOther{3, 3};
  ASSERT_TRUE(store->save({{"a", {{kStream, {100}}, {kOther, {100}}}, {}}, {"b", {{kStream, {40}}}, {}}}, {}));
  EXPECT_EQ(store->rewind({kStream, StreamId{9, 9}}, {50}), 1U);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(store->cursor("a", kStream), FileOffset{50});
    EXPECT_EQ(store->cursor("b", kStream), FileOffset{40});
    EXPECT_EQ(store->cursor("a", kOther), FileOffset{100});
    reopen();
  }
  EXPECT_EQ(store->rewind({kStream}, {50}), 0U);
}

TEST_F(CursorStoreTest, ACommandOpensOnlyWhatIsThereAndSeesWhatNodesTold) {
  EXPECT_EQ(CursorStore::open_existing(scratch / "nowhere").error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(scratch / "nowhere"));
  const NodeId node{7, 7};
  ASSERT_TRUE(store->node(node, "host"));
  CursorStore::StreamChanges changes;
  changes.told[kStream] = {node, {}};
  changes.told[kStream].info.stream = kStream;
  changes.told[kStream].info.sequence = 1;
  changes.told[kStream].info.path = "/log/a";
  ASSERT_TRUE(store->save({{"a", {{kStream, {100}}, {StreamId{9, 9}, {5}}}, {}}}, {}, changes));
  auto beside = CursorStore::open_existing(scratch.path());
  ASSERT_TRUE(beside) << beside.error().context;
  const auto streams = beside->streams();
  ASSERT_EQ(streams->size(), 2U) << "one of which only a cursor is left";
  EXPECT_EQ(streams->front().node_name, "host");
  EXPECT_EQ(streams->front().info.path, "/log/a");
  EXPECT_EQ(beside->cursors(kStream), (std::map<std::string, FileOffset>{{"a", {100}}}));
}

TEST_F(CursorStoreTest, ADamagedFileIsSetAsideAndAFreshOneBegun) {
  ASSERT_TRUE(store->save({{"s", {{kStream, {100}}}, {}}}, {}));
  store.reset();
  std::filesystem::remove(scratch / "cursors.db-wal");
  test::rewrite(scratch / "cursors.db", std::string(10'000, 'x'));
  reopen();
  ASSERT_FALSE(error) << error->context;
  EXPECT_EQ(test::contents(set_aside), std::string(10'000, 'x'));
  EXPECT_EQ(store->cursor("s", kStream), std::nullopt);
}

TEST_F(CursorStoreTest, AStoreWithOtherTablesIsSetAside) {
  store.reset();
  ASSERT_TRUE(
      Database::open(scratch / "cursors.db")->execute("DROP TABLE mirrors; CREATE TABLE mirrors (sink TEXT NOT NULL)"));
  reopen();
  ASSERT_FALSE(error) << error->context;
  EXPECT_NE(set_aside, "");
}

TEST_F(CursorStoreTest, AStoreThatSomebodyElseLocksIsLeftAlone) {
  store.reset();
  auto other = Database::open(scratch / "cursors.db");
  ASSERT_TRUE(other->execute("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE"));
  reopen();
  ASSERT_TRUE(error);
  EXPECT_NE(error->code, ErrorCode::kCorrupt);
  EXPECT_EQ(set_aside, "");
}

TEST_F(CursorStoreTest, ABeginningThatFailedIsBegunAgain) {
  store.reset();
  std::filesystem::remove(scratch / "cursors.db");
  ASSERT_TRUE(Database::open(scratch / "cursors.db")
                  ->execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
                            "CREATE TRIGGER full BEFORE INSERT ON meta WHEN NEW.key = 'consumer' BEGIN "
                            "SELECT RAISE(ABORT, 'full'); END"));
  reopen();
  ASSERT_TRUE(error);
  ASSERT_TRUE(Database::open(scratch / "cursors.db")->execute("DROP TRIGGER full"));
  reopen();
  ASSERT_FALSE(error) << error->context;
  EXPECT_EQ(set_aside, "");
}

TEST_F(CursorStoreTest, AnotherSchemaVersionIsRefusedAndLeftAlone) {
  store.reset();
  ASSERT_TRUE(Database::open(scratch / "cursors.db")->execute("UPDATE meta SET value='99' WHERE key='schema'"));
  reopen();
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, ErrorCode::kUnsupported);
  EXPECT_EQ(set_aside, "");
}

}  // namespace
}  // namespace fantail
