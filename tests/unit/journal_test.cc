#include "state/journal.h"

#include <gmock/gmock.h>

#include <fstream>

#include "common/base/log.h"
#include "common/json/json.h"
#include "tests/support/scratch_directory.h"
#include "tests/support/seeded.h"

namespace fantail::state {
namespace {

/// A store and its journal in a directory of their own; restart() forgets what is not on disk.
class JournalTest : public testing::Test {
 protected:
  JournalTest() {
    log::set_up(log::Level::kOff);
    start();
  }
  ~JournalTest() override { log::set_up(log::Level::kInfo); }

  void start() {
    directory.emplace(*StateDirectory::open(scratch.path() / "state"));
    store.emplace();
    auto opened = Journal::open(*directory, *store);
    ASSERT_TRUE(opened) << opened.error().context;
    journal.emplace(std::move(*opened));
  }
  void restart() {
    journal.reset();
    directory.reset();
    start();
  }
  void run(const std::string& operation, const std::string& arguments, Durability durability = Durability::kWrite) {
    ASSERT_TRUE(store->apply(operation, arguments, {}, {1}));
    const auto ok = journal->commit(store->take_changes(), durability);
    ASSERT_TRUE(ok) << ok.error().context;
  }
  void set(const std::string& key, int value, Durability durability = Durability::kWrite) {
    run("set", R"({"key":")" + key + R"(","value":)" + std::to_string(value) + "}", durability);
  }
  void compact() {
    ASSERT_TRUE(journal->begin_compaction(*store));
    for (bool done = false; !done;) {
      const auto piece = journal->compact_piece(*store);
      ASSERT_TRUE(piece) << piece.error().context;
      done = *piece;
    }
  }
  std::string items() {
    const std::string text = *store->apply("items", "{}", {}, {1});
    return text.substr(0, text.rfind(",\"revision\"")) + "}";
  }
  std::string text_of(JournalFile& file, FileOffset from = {}) {
    std::string out(file.end() - from, '\0');
    const auto n = file.read_at(from, std::as_writable_bytes(std::span(out.data(), out.size())));
    EXPECT_EQ(*n, out.size());
    return out;
  }

  test::ScratchDirectory scratch;
  std::optional<StateDirectory> directory;
  std::optional<StateStore> store;
  std::optional<Journal> journal;
};

TEST_F(JournalTest, WhatWasCommittedIsThereAfterARestart) {
  set("a", 1);
  set("b", 2, Durability::kFsync);
  const StreamId stream = journal->current().stream();
  restart();
  EXPECT_EQ(items(), R"({"value":{"a":1,"b":2}})");
  EXPECT_EQ(store->revision(), 2u);
  EXPECT_EQ(journal->current().stream(), stream) << "the same stream goes on";
  set("a", 3);
  EXPECT_EQ(store->revision(), 3u);
}

TEST_F(JournalTest, WhoSawWhatWasLostIsTold) {
  const auto reboot = [&](int changes_lost) {
    const auto index = scratch.path() / "state/journal";
    Json text = Json::parse(test::contents(index));
    std::string lines = test::contents(journal->current().path());
    for (; changes_lost > 0; --changes_lost) lines.resize(lines.rfind('\n', lines.size() - 2) + 1);
    text["boot"] = "another";
    std::ofstream(index) << text.dump();
    std::ofstream(journal->current().path(), std::ios::trunc) << lines;
    restart();
  };
  for (int i = 1; i <= 10; ++i) set("n", i);
  const EpochId first = journal->epoch();
  restart();
  EXPECT_EQ(journal->epoch(), first) << "only the process has ended";
  reboot(0);
  const EpochId second = journal->epoch();
  EXPECT_NE(second, first);
  EXPECT_EQ(journal->diverged(first, 10), std::nullopt) << "nothing was lost";
  for (int i = 11; i <= 20; ++i) set("n", i);
  const StreamId stream = journal->current().stream();
  reboot(5);
  EXPECT_NE(journal->current().stream(), stream) << "other bytes come to the same offsets";
  for (int i = 16; i <= 30; ++i) set("n", -i);
  restart();
  EXPECT_EQ(journal->diverged(second, 15), std::nullopt);
  EXPECT_EQ(journal->diverged(second, 16), 15u);
  EXPECT_EQ(journal->diverged(first, 10), std::nullopt);
  EXPECT_EQ(journal->diverged(first, 11), 10u) << "the first ended there";
  EXPECT_EQ(journal->diverged(journal->epoch(), 30), std::nullopt);
  EXPECT_EQ(journal->diverged(EpochId{1, 2}, 1), 0u) << "of another server";
}

TEST_F(JournalTest, AHostMayStopAsOftenAsItLikes) {
  set("a", 1);
  const EpochId first = journal->epoch();
  for (int i = 0; i < 150; ++i) {
    const auto index = scratch.path() / "state/journal";
    Json text = Json::parse(test::contents(index));
    text["boot"] = "another";
    std::ofstream(index) << text.dump();
    restart();
    ASSERT_EQ(items(), R"({"value":{"a":1}})") << i;
  }
  EXPECT_EQ(journal->diverged(journal->epoch(), 1), std::nullopt);
  EXPECT_EQ(journal->diverged(first, 2), 1u) << "forgotten: the oldest that is known counts";
}

TEST_F(JournalTest, WithoutDurabilityItIsWrittenWhenAsked) {
  set("a", 1, Durability::kNone);
  EXPECT_TRUE(journal->unwritten());
  ASSERT_TRUE(journal->flush());
  restart();
  EXPECT_EQ(items(), R"({"value":{"a":1}})");
}

TEST_F(JournalTest, ARecordThatACrashCutOffIsRemovedWhereverItWasCut) {
  set("a", 1);
  const std::uint64_t good = journal->current().end().raw;
  set("b", 2);
  const auto path = journal->current().path();
  const auto index = scratch.path() / "state/journal";
  const std::string whole = text_of(journal->current());
  const std::string index_before = test::contents(index);
  const StreamId stream = journal->current().stream();
  const EpochId epoch = journal->epoch();
  const auto start_with = [&](const std::string& journal_text, const std::string& index_text) {
    journal.reset();
    directory.reset();
    std::ofstream(index) << index_text;
    std::ofstream(path, std::ios::binary) << journal_text;
    start();
    EXPECT_EQ(items(), R"({"value":{"a":1}})") << journal_text.size();
    EXPECT_EQ(store->revision(), 1u);
    EXPECT_EQ(test::contents(path).size(), good);
  };
  Json another_boot = Json::parse(index_before);
  another_boot["boot"] = "another";
  for (std::size_t length = good + 1; length < whole.size(); length += 7) {
    start_with(whole.substr(0, length), index_before);
    EXPECT_EQ(journal->current().stream(), stream) << "nobody was told of it";
    EXPECT_EQ(journal->epoch(), epoch);
    start_with(whole.substr(0, length), another_boot.dump());
    EXPECT_NE(journal->current().stream(), stream)
        << "what others have of the old one must not come again as something else";
    EXPECT_NE(journal->epoch(), epoch);
  }
  std::string bad_line = whole;
  bad_line[good + 40] ^= 1;
  start_with(bad_line, index_before);
  EXPECT_NE(journal->current().stream(), stream) << "it may have been good, and seen";
  EXPECT_NE(journal->epoch(), epoch);
  const StreamId renamed = journal->current().stream();
  restart();
  EXPECT_EQ(journal->current().stream(), renamed);
}

TEST_F(JournalTest, AStartThatFailsForADamagedOneLeavesItForTheNext) {
  set("a", 1);
  const std::uint64_t good = journal->current().end().raw;
  set("b", 2);
  set("c", 3);
  const auto path = journal->current().path();
  std::string text = text_of(journal->current());
  text[good + 40] ^= 1;
  journal.reset();
  directory.reset();
  std::ofstream(path, std::ios::binary) << text;
  const auto in_the_way = scratch.path() / "state/journal-2.jsonl";
  std::filesystem::create_directory(in_the_way);
  directory.emplace(*StateDirectory::open(scratch.path() / "state"));
  store.emplace();
  EXPECT_FALSE(Journal::open(*directory, *store));
  EXPECT_EQ(test::contents(path), text);
  directory.reset();
  std::filesystem::remove(in_the_way);
  start();
  EXPECT_EQ(items(), R"({"value":{"a":1}})");
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(JournalTest, ADamagedOneIsSetAsideAndWhatIsBeforeTheDamageGoesOn) {
  set("a", 1);
  const std::uint64_t good = journal->current().end().raw;
  set("b", 2);
  set("c", 3);
  const auto path = journal->current().path();
  journal.reset();
  directory.reset();
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(good + 40));
    file.put('#');
  }
  start();
  EXPECT_EQ(items(), R"({"value":{"a":1}})");
  EXPECT_FALSE(std::filesystem::exists(path));
  set("d", 4);
  restart();
  EXPECT_EQ(items(), R"({"value":{"a":1,"d":4}})");
}

TEST_F(JournalTest, CompactionKeepsTheStateAndEveryChangeThatCameMeanwhile) {
  for (int i = 0; i < 100; ++i) set("k" + std::to_string(i % 7), i);
  const std::uint64_t revision = store->revision();
  ASSERT_TRUE(journal->begin_compaction(*store));
  set("meanwhile", 1);
  for (int i = 0; i < 3; ++i) {  // more than is copied at once
    run("set", R"({"key":"large)" + std::to_string(i) + R"(","value":")" + std::string(600'000, 'x') + R"("})");
  }
  run("delete", R"({"key":"k0"})");
  for (bool done = false; !done;) done = *journal->compact_piece(*store);
  set("after", 2);
  const std::string before = items();
  ASSERT_NE(journal->previous(), nullptr);
  EXPECT_EQ(journal->current().base_revision(), revision);
  restart();
  EXPECT_EQ(items() == before, true);
  EXPECT_EQ(store->revision(), revision + 6);
  EXPECT_NE(journal->previous(), nullptr) << "for those who still read it";
  compact();
  compact();
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(scratch.path() / "state")) {
    if (entry.path().extension() == ".jsonl") ++files;
  }
  EXPECT_EQ(files, 2u);
}

TEST_F(JournalTest, FromThePlaceBehindARevisionNoLaterChangeIsMissing) {
  for (int i = 0; i < 3000; ++i) set("key" + std::to_string(i), i);
  for (const bool again : {false, true}) {
    for (std::uint64_t revision = 0; revision <= 3000; revision += 113) {
      const FileOffset at = journal->current().place_behind(revision);
      const std::string text = text_of(journal->current(), at);
      const std::string wanted = R"("revision":)" + std::to_string(revision + 1) + ",";
      EXPECT_TRUE(text.empty() || text.starts_with(R"({"sum":)")) << "the beginning of a line";
      if (revision == 3000) continue;
      EXPECT_LT(text.find(wanted), 200'000u) << revision << again << ": there, and not far behind";
    }
    if (!again) restart();
  }
}

TEST_F(JournalTest, AnIndexThatIsDamagedIsNeverASilentFreshStart) {
  set("a", 1);
  journal.reset();
  directory.reset();
  std::ofstream(scratch.path() / "state/journal") << "garbage";
  directory.emplace(*StateDirectory::open(scratch.path() / "state"));
  store.emplace();
  const auto opened = Journal::open(*directory, *store);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace fantail::state
