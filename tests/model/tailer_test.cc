#include <fcntl.h>

#include "producer/file_system.h"
#include "tests/model/tailer_model.h"

// What a Tailer does with one file or two, each told step by step.
namespace fantail {
namespace {

/// By the clock that files are stamped with.
WallTime last_tick() {
  static const test::ScratchDirectory directory;
  test::append(directory / "clock", "x");
  const UniqueFd fd(::open((directory / "clock").c_str(), O_RDONLY | O_CLOEXEC));
  return last_change_of(fd.get()).value();
}

TEST_F(TailerModelTest, WhatWasHeldAfterItsFileWasDeletedIsRecordedAsLostWhenTheProducerDies) {
  begin(1, "*.log");
  consumer->inlet.faults = {.drop = 1};  // it is there, and gets nothing
  consumer->link.faults = {.drop = 1};
  append("a.log");
  settle();
  remove("a.log");
  run(10s);  // sent, sealed, held for the consumer
  producer->tailer->save_now();
  stop();
  consumer->inlet.faults = consumer->link.faults = {};
  start();
  run(30s);
  ASSERT_EQ(consumer->received().size(), 1U);
  const Received& r = consumer->received().begin()->second;
  ASSERT_EQ(r.losses.size(), 1U);
  EXPECT_EQ(r.losses[0].reason, wire::LossReason::kDeleted);
  EXPECT_EQ(r.cursor().raw, incarnations[0]->bytes.size());
}

TEST_F(TailerModelTest, AFileThatIsRewrittenRightAfterAKillIsNoMixture) {
  for (const bool empty_at_first : {false, true}) {
    begin(1, "*.log");
    if (empty_at_first) {
      test::append(path("a.log"), "");
      for (int i = 0; i < 100 && consumer->received().empty(); ++i) run(kStep);
      ASSERT_EQ(consumer->received().size(), 1U) << "it is a stream";
    }
    append("a.log");
    run(100ms);  // read and sent, and its position not saved yet
    stop();
    truncate_and_refill("a.log");
    append("a.log");
    start();
    settle();
    expect_all_that_there_was();
    end();
  }
}

TEST_F(TailerModelTest, AStreamWhoseEndWasNotSavedHasEndedAllTheSame) {
  begin(1, "*.log");
  append("a.log");
  settle();
  const StreamId first = consumer->received().begin()->first;
  truncate_and_refill("a.log");
  run(100ms);  // another stream already, and the end of the first not saved yet
  stop();
  consumer->restart();
  start();
  settle();
  EXPECT_EQ(consumer->received().size(), 2U);
  EXPECT_TRUE(consumer->of(first)->final_length);
}

TEST_F(TailerModelTest, AHeldFileIsReadAfterItWasDeleted) {
  begin(1, "*.log");
  append("a.log");
  settle();
  consumer->link.go_down();
  consumer->inlet.listening = false;
  append("a.log");
  run(100ms);
  remove("a.log");
  run(60s);
  consumer->inlet.listening = true;
  connect();
  run(2s);
  expect_all_that_there_was();
  EXPECT_EQ(consumer->received().begin()->second.bytes, incarnations[0]->bytes);
}

TEST_F(TailerModelTest, WhileNobodyListensNothingIsSent) {
  begin(1, "*.log");
  consumer->inlet.listening = false;
  consumer->link.go_down();
  append("a.log");
  run(2s);
  const auto sent = [&] { return producer->publisher->broadcast_counters().raw_bytes_sent; };
  EXPECT_EQ(sent(), 0U);
  consumer->inlet.listening = true;
  connect();
  settle();
  expect_all_that_there_was();
  EXPECT_EQ(sent(), incarnations[0]->bytes.size());
}

TEST_F(TailerModelTest, WhatWasSeenWhileNobodyListenedIsALossWhenItIsTruncated) {
  for (const bool running : {true, false}) {
    begin(1, "*.log");
    append("a.log");
    settle();
    const StreamId first = consumer->received().begin()->first;
    const FileOffset read{incarnations[0]->bytes.size()};
    consumer->inlet.listening = false;
    consumer->link.go_down();
    append("a.log");
    run(running ? kStep : 2s);
    const FileOffset seen{incarnations[0]->bytes.size()};
    if (!running) stop();
    truncate_and_refill("a.log");
    if (running) run(2s);
    consumer->inlet.listening = true;
    running ? connect() : start();
    run(3s);
    const Received& r = *consumer->of(first);
    ASSERT_EQ(r.losses.size(), 1U) << "running: " << running;
    EXPECT_EQ(r.losses[0].range, (ByteRange{read, seen}));
    EXPECT_EQ(r.losses[0].reason, wire::LossReason::kTruncated);
    EXPECT_EQ(consumer->received().size(), 2U);
    end();
  }
}

TEST_F(TailerModelTest, ACopyBesideAnyNameOfAFileTakesItsPlace) {
  for (const bool running : {true, false}) {
    begin(1, "*.log*");
    append("a.log");
    settle();
    std::filesystem::create_hard_link(path("a.log"), path("z.log"));
    at["z.log"] = at.at("a.log");
    settle();
    if (!running) stop();
    copy_and_truncate("z.log");
    if (!running) start();
    settle();
    expect_all_that_there_was();
    EXPECT_EQ(consumer->received().size(), 2U);
    end();
  }
}

TEST_F(TailerModelTest, WhatWasRotatedBeforeAnybodyLookedIsOlderThanWhatTookItsPlace) {
  begin(1, "*.log");
  append("a.log");
  settle();
  rename("a.log");
  append("a.log");
  rename("a.log");
  append("a.log");
  settle();
  expect_all_that_there_was();
  std::map<std::uint64_t, std::string> in_sequence;
  for (const auto& [id, r] : consumer->received()) in_sequence[r.info.sequence] = r.bytes;
  ASSERT_EQ(in_sequence.size(), 3U);
  EXPECT_EQ(in_sequence.rbegin()->second, at.at("a.log")->bytes);
}

TEST_F(TailerModelTest, OfAFileThatBeganAtItsEndNothingIsHeldAndNothingIsLost) {
  from_end = true;
  begin(1, "*.log", {"a.log"});
  settle();
  consumer->link.go_down();
  remove("a.log");
  run(20s);
  EXPECT_EQ(producer->tailer->size(), 0U) << "nobody lacks anything of it";
  stop();
  start();
  settle();
  EXPECT_EQ(producer->tailer->counters().given_up_bytes, 0U);
}

TEST_F(TailerModelTest, AFileThatBeganAtItsEndIsNotDeletedAfterItsCommit) {
  from_end = true;
  tailing.delete_after = Duration::zero();
  begin(1, "*.log", {"old.log"});
  append("old.log");
  append("new.log");
  settle();
  run(60s);
  EXPECT_FALSE(std::filesystem::exists(path("new.log")));
  EXPECT_TRUE(std::filesystem::exists(path("old.log"))) << "nobody has its beginning";
}

TEST_F(TailerModelTest, AnOldFileIsAStreamWhenItIsWrittenTo) {
  const auto age = [&](const std::string& name) {
    std::filesystem::last_write_time(path(name), std::filesystem::file_time_type::clock::now() - 2h);
  };
  tailing.ignore_older = 1h;
  begin(1, "*.log", {"known.log"});
  settle();
  age("known.log");
  append("old.log");
  age("old.log");
  run(10s);
  stop();
  append("older.log");
  age("older.log");
  start();
  run(10s);
  EXPECT_EQ(producer->tailer->size(), 1U) << "who is known goes on";
  append("old.log");
  settle();
  EXPECT_EQ(producer->tailer->size(), 2U);
  append("older.log");
  settle();
  expect_all_that_there_was();
  EXPECT_EQ(consumer->received().size(), 3U);
}

TEST_F(TailerModelTest, FromTheEndIsForTheVeryFirstStartOnly) {
  from_end = true;
  begin(1, "*.log");
  stop();
  append("a.log");
  start();
  settle();
  expect_all_that_there_was();
  remove("a.log");
  settle(20s);
  ASSERT_EQ(producer->tailer->size(), 0U) << "all streams are finished and forgotten";
  stop();
  append("b.log");
  start();
  settle();
  expect_all_that_there_was();
}

TEST_F(TailerModelTest, WhileTheRegistryCannotBeWrittenOnlyTheLastCommitOfEachStreamWaits) {
  begin(1, "*.log");
  append("a.log");
  settle();
  const std::string registry = *state / "registry.db";
  ASSERT_TRUE(Database::open(registry)->execute("ALTER TABLE commits RENAME TO away"));
  for (int i = 0; i < 20; ++i) {
    append("a.log");
    settle(500ms);
  }
  EXPECT_EQ(producer->tailer->unsaved_commits(), 1U);
  ASSERT_TRUE(Database::open(registry)->execute("ALTER TABLE away RENAME TO commits"));
  run(3s);
  EXPECT_EQ(producer->tailer->unsaved_commits(), 0U);
  const StreamId id = consumer->received().begin()->first;
  stop();
  start();
  EXPECT_EQ(producer->ledger.position("c", id), FileOffset{incarnations[0]->bytes.size()});
}

TEST_F(TailerModelTest, ManyNewDirectoriesAreFoundWithFewWalks) {
  begin(1, "**/*.log");
  settle();
  const std::uint64_t before = producer->tailer->counters().walks;
  const MonoTime began = now;
  for (int i = 0; i < 100; ++i) {
    const std::string name = "new" + std::to_string(i);
    std::filesystem::create_directory(path(name));
    run(kStep);
    append(name + "/a.log");
  }
  settle();
  const auto walks = producer->tailer->counters().walks - before;
  EXPECT_LE(walks, static_cast<std::uint64_t>((now - began) / 200ms) + 1);
  EXPECT_GE(walks, 1U);
  expect_all_that_there_was();
}

/// There are more files than are looked at in one piece, and than in two.
class StartTest : public TailerModelTest {
 protected:
  static constexpr std::size_t kPiece = 4096;  // at most
  static constexpr std::size_t kMany = 2 * kPiece + 1;

  static std::string name_of(std::size_t i) {
    std::string number = std::to_string(i);
    return std::string(5 - number.size(), '0') + number + ".log";
  }
  std::string text_of(std::size_t i) const {
    if (equal && (i == 0 || i == kMany - 1)) return std::string(5'000, 'x');
    return "these are the bytes of " + name_of(i) + "\n";
  }
  void begin_with(std::size_t many) {
    begin(1, "*.log");
    stop();
    state = std::make_unique<ScratchDirectory>();
    for (std::size_t i = 0; i < many; ++i) test::append(path(name_of(i)), text_of(i));
    start();
  }
  bool starting() const { return producer->tailer->size() < kMany; }
  std::size_t arrived() const {
    return static_cast<std::size_t>(std::count_if(consumer->received().begin(), consumer->received().end(),
                                                  [](const auto& r) { return !r.second.bytes.empty(); }));
  }
  /// Each file is one stream with all of its bytes.
  void expect_each_once() {
    ASSERT_THAT(consumer->wrong, testing::IsEmpty());
    std::map<std::string, std::string> by_path;
    for (const auto& [id, r] : consumer->received()) {
      ASSERT_THAT(r.losses, testing::IsEmpty()) << r.info.path;
      ASSERT_TRUE(by_path.emplace(r.info.path, r.bytes).second) << r.info.path << " comes as two streams";
    }
    ASSERT_EQ(by_path.size(), kMany);
    for (std::size_t i = 0; i < kMany; ++i) ASSERT_EQ(by_path[path(name_of(i))], text_of(i));
  }

  bool equal = false;  ///< the first and the last file; none is a copy, because both are there at the very first start
};

TEST_F(StartTest, FilesArriveWhileOthersWaitToBeLookedAt) {
  equal = true;
  begin_with(kMany);
  EXPECT_LE(producer->tailer->size(), kPiece);
  EXPECT_FALSE(producer->tailer->everything_sent()) << "there are more";
  while (starting() && arrived() == 0) run(kStep);
  EXPECT_TRUE(starting()) << "nothing came before all were looked at";
  EXPECT_GT(arrived(), 0U);
  settle();
  expect_each_once();
  EXPECT_TRUE(producer->tailer->everything_sent());
}

/// Like kill -9, twice; the consumer dies once, too, and has committed nothing.
TEST_F(StartTest, OneThatIsKilledInTheMiddleLosesNothingAndSendsNothingTwice) {
  equal = true;
  begin_with(kMany);
  for (const bool restarted : {false, true}) {
    while (starting() && arrived() == 0) run(kStep);
    ASSERT_TRUE(starting());
    stop();
    if (restarted) break;
    consumer->restart();
    start();
  }
  start();
  settle();
  expect_each_once();
}

TEST_F(StartTest, FilesThatHaveSomethingToSendAreLookedAtFirst) {
  begin_with(kMany);
  settle();
  stop();
  const std::string more = "and more\n";
  std::string expected = text_of(kMany - 1) + more;
  test::append(path(name_of(kMany - 1)), more);  // the last by its age
  start();
  run(kStep);  // a second piece: without an order the last file would be in the third
  const auto& all = consumer->received();
  EXPECT_TRUE(std::any_of(all.begin(), all.end(), [&](const auto& r) { return r.second.bytes == expected; }));
}

TEST_F(StartTest, AllAreLookedAtAtOnceWhereFilesBeginAtTheirEnd) {
  from_end = true;
  begin_with(kPiece + 1);
  EXPECT_EQ(producer->tailer->size(), kPiece + 1);
  stop();
  start();
  settle();
  EXPECT_EQ(arrived(), 0U) << "what was there at the very first start is not sent";
}

TEST_F(TailerModelTest, WalksThatTakeLongAreFurtherApartButNotForEver) {
  for (const bool events : {true, false}) {
    polling = !events;
    tailing.rescan = kStep;
    begin(1, "*.log");
    const int many = events ? 2'000 : 10;  // to walk by them takes more than a millisecond
    for (int i = 0; i < many; ++i) test::append(path(std::to_string(i) + ".log"), "");
    settle();
    const auto walks = [&] { return producer->tailer->counters().walks; };
    const std::uint64_t before = walks();
    run(2s);
    // With a rest of 1,000 times as long as a walk took they are ten times --rescan apart. When polling they rest as
    // well where one takes more than a tenth of that, as it may with ten files on a busy machine.
    const std::uint64_t expected = events ? 2s / (10 * kStep) : 2s / kStep;
    EXPECT_GE(walks() - before, events ? expected - 1 : expected / 4);
    EXPECT_LE(walks() - before, expected + 1);
    end();
  }
}

TEST_F(TailerModelTest, AFileThatIsCutExactlyToWhatWasReadGoesOnGrowing) {
  begin(1, "*.log");
  append("a.log");
  settle();
  const std::string read = incarnations[0]->bytes;
  consumer->inlet.listening = false;  // nobody wants it, so its bytes wait
  consumer->link.go_down();
  append("a.log");
  run(100ms);
  std::filesystem::resize_file(path("a.log"), read.size());
  run(100ms);
  consumer->inlet.listening = true;
  connect();
  run(3s);
  test::append(path("a.log"), "x");
  run(3s);
  EXPECT_EQ(consumer->received().begin()->second.bytes, read + "x");
}

TEST_F(TailerModelTest, AFileThatIsCutWithinWhatAKilledProducerReadIsAnotherStream) {
  begin(1, "*.log");
  append("a.log");
  settle();
  const std::string saved = incarnations[0]->bytes;
  append("a.log");
  run(100ms);
  stop();
  std::filesystem::resize_file(path("a.log"), saved.size() + 1);
  test::append(path("a.log"), chance->text(1000));
  start();
  settle();
  EXPECT_EQ(consumer->received().size(), 2U);
}

TEST_F(TailerModelTest, AFileThatGetsANameThatNoPatternTakesInAnotherWatchedDirectoryIsFoundAfterAKill) {
  begin(1, "**/*.log");
  std::filesystem::create_directory(path("d"));
  append("a.log");
  settle();
  stop();
  append("a.log");
  std::filesystem::rename(path("a.log"), path("d/a.log.1"));
  start();
  settle(5s);
  expect_all_that_there_was();
  EXPECT_EQ(consumer->received().begin()->second.bytes, incarnations[0]->bytes);
  EXPECT_EQ(producer->tailer->counters().given_up_bytes, 0U);
}

TEST_F(TailerModelTest, ACopyThatLacksTheEndOfWhatWasReadIsKnownAfterAKill) {
  begin(1, "*.log*");
  append("a.log", chance->text(10'000));
  settle();
  producer->tailer->save_now();
  std::filesystem::copy_file(path("a.log"), path("a.log.1"));
  run(100ms);
  append("a.log", chance->text(100));
  run(100ms);
  note_what_arrived();
  const std::string text = chance->text(50);
  test::rewrite(path("a.log"), text);
  reincarnate("a.log", text);
  stop();
  start();
  settle();
  expect_all_that_there_was();
  EXPECT_EQ(consumer->received().size(), 2U);
}

TEST_F(TailerModelTest, AFileThatIsDeletedAndBegunAnewWithTheSameBytesIsAnotherStream) {
  for (const std::size_t size : {20U, 10'000U}) {
    for (const Duration gap : {0ms, 300ms, 5000ms}) {
      for (const bool begun_empty : {true, false}) {
        begin(1, "*.log");
        SCOPED_TRACE(std::to_string(size) + " bytes, after " + std::to_string(to_milliseconds(gap)) + " ms");
        const std::string text = chance->text(size);
        append("a.log", text);
        settle();
        std::filesystem::remove(path("a.log"));
        if (gap > 0ms) run(gap);
        test::append(path("a.log"), begun_empty ? "" : text);
        if (begun_empty) {
          run(100ms);
          test::append(path("a.log"), text);
        }
        settle(5s);
        EXPECT_EQ(consumer->received().size(), 2U);
        for (const auto& [id, received] : consumer->received()) {
          EXPECT_EQ(received.bytes, text);
          EXPECT_TRUE(received.losses.empty());
        }
        end();
      }
    }
  }
}

TEST_F(TailerModelTest, ALongerFileThatIsRenamedOverTheOldOneContinuesIt) {
  begin(1, "*.log");
  append("a.log", chance->text(10'000));
  settle();
  const std::string longer = incarnations[0]->bytes + "and more";
  test::append(path("saved"), longer);
  // Told apart by the file system's clock: a file that is begun after the other was deleted is no copy of it.
  for (const auto begun = birth_of(path("saved")); begun && last_tick() <= *begun;) {
  }
  std::filesystem::rename(path("saved"), path("a.log"));
  settle(5s);
  ASSERT_EQ(consumer->received().size(), 1U);
  EXPECT_EQ(consumer->received().begin()->second.bytes, longer);
}

TEST_F(TailerModelTest, AKnownCopyIsNotTakenByAnotherStreamWhoseFileIsDeleted) {
  begin(1, "*.log*");
  append("a.log", chance->text(1000));
  settle();
  std::filesystem::copy_file(path("a.log"), path("a.log.1"));  // short: a stream of its own after a while
  settle(5s);
  ASSERT_EQ(consumer->received().size(), 2U);
  append("a.log", chance->text(50'000));
  settle();
  std::filesystem::copy_file(path("a.log"), path("a.log.2"));
  settle();
  std::filesystem::remove(path("a.log.1"));
  settle(10s);
  ASSERT_EQ(consumer->received().size(), 2U);
  std::vector<std::size_t> sizes;
  for (const auto& [id, received] : consumer->received()) sizes.push_back(received.bytes.size());
  EXPECT_THAT(sizes, testing::UnorderedElementsAre(1000, 51'000));
}

}  // namespace
}  // namespace fantail
