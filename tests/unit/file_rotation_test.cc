#include "tests/support/seeded.h"
#include "tests/unit/file_sink_fixture.h"

namespace fantail {
namespace {

using testing::ElementsAre;

std::string kind(const testing::TestParamInfo<const char*>& parameter) {
  return is_compressed_name(parameter.param) ? "Zst" : "Plain";
}
INSTANTIATE_TEST_SUITE_P(, FileRotationTest, testing::Values("out.log", "out.log.zst"), kind);

TEST_P(FileRotationTest, ALongFileGetsTheTimeIntoItsNameAndAnotherIsBegun) {
  lines(10);
  commit();
  EXPECT_THAT(others(), ElementsAre());
  lines(200);
  EXPECT_THAT(others(), ElementsAre()) << "not before it is committed";
  commit();
  EXPECT_THAT(others(), ElementsAre(stamped("20270115T080000Z")));
  EXPECT_EQ(content(scratch / stamped("20270115T080000Z")), source);
  EXPECT_TRUE(store->outputs(sink->key()).empty()) << "and what has left is not remembered";
  lines(1);
  commit();
  EXPECT_THAT(content(path()), testing::StartsWith("211 "));
  EXPECT_EQ(everything(), source);
}

TEST_P(FileRotationTest, ACounterKeepsTheNamesOfOneSecondApart) {
  for (int i = 0; i < 3; ++i) {
    lines(200);
    commit();
  }
  EXPECT_THAT(others(), testing::UnorderedElementsAre(stamped("20270115T080000Z"), stamped("20270115T080000Z.1"),
                                                      stamped("20270115T080000Z.2")));
  EXPECT_EQ(everything(), source);
}

TEST_P(FileRotationTest, KilledAtAnyStepItNeitherLosesNorDoublesALine) {
  enum Step { kTaken, kSaved, kRenamed, kForgotten, kCreated, kWritten, kCommitted, kEnd };
  for (int step = kTaken; step < kEnd; ++step) {
    SCOPED_TRACE("killed after step " + std::to_string(step));
    for (const auto& file : others()) fs::remove(scratch / file);
    fs::remove(path());
    source.clear();
    begin_with({kLimit, {}});
    from = 0;
    ASSERT_TRUE(store->save({{sink->key(), {{meta.stream, {0}}}, {{.path = path(), .gone = true}}}}, {}));
    crash();
    lines(10);
    commit();
    lines(300);
    const std::string rotated_lines = source;
    [&] {
      const Checkpoint checkpoint = take_checkpoint();
      ASSERT_EQ(checkpoint.outputs.size(), 1U);
      const std::string to = checkpoint.outputs[0].rotated_to;
      ASSERT_NE(to, "");
      if (step == kTaken) return;
      lines(5);
      save(checkpoint);
      if (step == kSaved) return;
      if (step == kRenamed) return fs::rename(path(), to);
      sink->stored();
      if (step == kForgotten) return;
      if (step == kCreated) return test::append(path(), "");
      EXPECT_TRUE(sink->flush({}));
      EXPECT_TRUE(sink->prepare_checkpoint());
      if (step == kWritten) return;
      commit();
    }();
    crash();
    if (step == kTaken) {
      EXPECT_THAT(others(), ElementsAre());
    } else {
      ASSERT_EQ(others().size(), 1U) << "what a crash interrupted is finished by the next start";
      EXPECT_EQ(content(scratch / *others().begin()), rotated_lines);
    }
    deliver();
    lines(5);
    finish();
    EXPECT_EQ(everything(), source);
    if (step != kTaken) {
      EXPECT_EQ(content(scratch / *others().begin()), rotated_lines) << "a file that was renamed never changes again";
    }
  }
}

TEST_P(FileRotationTest, KilledAtRandomWhileSomebodyMovesFilesAwayToo) {
  for (const std::uint64_t seed : test::seeds(60)) {
    SCOPED_TRACE(test::replay(seed));
    for (const auto& file : others()) fs::remove(scratch / file);
    fs::remove(path());
    source.clear();
    const std::vector<Checkpoint::Output> forget = {{.path = path(), .gone = true}};
    ASSERT_TRUE(store->save({{sink->key(), {{meta.stream, {0}}}, forget}}, {}));
    crash();
    test::Chance chance(seed);
    int moves = 0;
    bool moved = false;  // and then what is in the moved file must not come again
    const auto killed = [&](double probability) {
      if (moved || !chance.with(probability)) return false;
      crash();
      return true;
    };
    for (int round = 0; round < 40; ++round) {
      lines(chance.between(std::size_t{0}, std::size_t{120}));
      if (chance.with(0.2)) now.ns += kSecond;
      if (killed(0.15)) continue;
      if (chance.with(0.5)) {
        ASSERT_TRUE(sink->flush({}));
      }
      const Checkpoint checkpoint = take_checkpoint();
      if (killed(0.1)) continue;
      moved = chance.with(0.1) && fs::exists(path());
      if (moved) fs::rename(path(), scratch / ("moved." + std::to_string(moves++)));
      lines(chance.between(std::size_t{0}, std::size_t{20}));
      save(checkpoint);
      for (const auto& output : checkpoint.outputs) {
        const bool renamed = !moved && !output.rotated_to.empty() && chance.with(0.3);
        if (renamed) fs::rename(path(), output.rotated_to);
      }
      if (killed(0.2)) continue;
      sink->stored();
      if (killed(0.1)) continue;
      if (moved) commit();
      moved = false;
    }
    finish();
    ASSERT_EQ(everything() == source, true) << everything().size() << " of " << source.size();
  }
}

TEST_P(FileRotationTest, LinesThatComeBeforeItIsRenamedWaitForTheNextFile) {
  lines(200);
  const std::string old_lines = source;
  const Checkpoint checkpoint = take_checkpoint();
  lines(50'000);
  EXPECT_LT(from, source.size()) << "and not more of them than memory is set aside for";
  EXPECT_LT(from, 1'000'000U);
  ASSERT_TRUE(sink->flush({}));
  EXPECT_EQ(content(path()), old_lines);
  save(checkpoint);
  sink->stored();
  finish();
  EXPECT_EQ(everything(), source);
}

TEST_P(FileRotationTest, AFileIsRotatedSoLongAfterItsFirstByteAlsoWhenNothingElseComes) {
  begin_with({0, 60s});
  now.ns += 100 * kSecond;
  commit();
  lines(1);
  now.ns += 59 * kSecond;
  commit();
  EXPECT_EQ(others().size(), 0U);
  now.ns += kSecond;
  commit();
  EXPECT_THAT(others(), ElementsAre(stamped("20270115T080240Z")));
  EXPECT_FALSE(fs::exists(path())) << "an empty file is not rotated, and not even there";
  now.ns += 100 * kSecond;
  commit();
  EXPECT_EQ(others().size(), 1U);
}

TEST_P(FileRotationTest, TheAgeOfAFileSurvivesRestarts) {
  begin_with({0, 60s});
  lines(1);
  commit();
  now.ns += 30 * kSecond;
  crash();
  lines(1);
  commit();
  now.ns += 29 * kSecond;
  commit();
  EXPECT_EQ(others().size(), 0U);
  lines(1);
  crash();
  now.ns += kSecond;
  commit();
  ASSERT_EQ(others().size(), 1U) << "though nobody wrote to it since the restart";
  EXPECT_EQ(content(scratch / *others().begin()), source.substr(0, source.find("3 "))) << "only what was committed";
  finish();
  EXPECT_EQ(everything(), source);
}

TEST_P(FileRotationTest, AClockThatWasFarAheadDoesNotStopTheRotation) {
  begin_with({0, 60s});
  now.ns += 1'000'000 * kSecond;
  lines(1);
  commit();
  now.ns -= 1'000'000 * kSecond;
  commit();
  EXPECT_EQ(others().size(), 1U);
}

TEST_P(FileRotationTest, AFileThatSomebodyMovesAwayIsCompleteAndAnotherIsBegun) {
  for (const bool create : {false, true}) {
    const std::size_t begin = source.size();
    const std::string moved = path() + (create ? ".2" : ".1");
    lines(10);
    commit();
    lines(10);
    ASSERT_TRUE(sink->flush({}));
    fs::rename(path(), moved);
    if (create) test::append(path(), "");
    lines(10);
    commit();
    EXPECT_EQ(content(moved), source.substr(begin)) << "to the last commit";
    const std::size_t next = source.size();
    lines(10);
    commit();
    EXPECT_EQ(content(path()), source.substr(next));
    crash();
    lines(1);
    commit();
    EXPECT_EQ(content(path()), source.substr(next));
    fs::remove(path());
    crash();
  }
}

TEST_P(FileRotationTest, AFileThatSomebodyMovesAwayWhileNothingComesIsLeftAlone) {
  lines(10);
  commit();
  fs::rename(path(), path() + ".1");
  commit();
  lines(10);
  commit();
  EXPECT_THAT(content(path()), testing::StartsWith("11 "));
  EXPECT_EQ(everything(), source);
}

TEST_P(FileRotationTest, OfAFileThatSomebodyDeletesTheLinesNotYetCommittedAreKept) {
  begin_with({});
  lines(10);
  commit();
  lines(20'000);  // more than waits in memory
  fs::remove(path());
  lines(10);
  commit();
  EXPECT_TRUE(content(path()) == source.substr(source.find("11 ")));
  crash();
  lines(10);
  commit();
  EXPECT_TRUE(content(path()) == source.substr(source.find("11 ")));
}

TEST_P(FileRotationTest, AFileThatCannotBeRenamedIsGoneOnWith) {
  const std::string ending = compressed() ? ".zst" : "";
  use(std::string(250 - ending.size(), 'x') + ending);  // no room for the time
  from = open(meta);
  for (int i = 0; i < 3; ++i) {
    lines(200);
    commit();
    EXPECT_EQ(others().size(), 0U);
    EXPECT_EQ(content(path()), source);
    if (i == 1) crash();
  }
  lines(200);
  save(take_checkpoint());
  crash();
  lines(1);
  commit();
  EXPECT_EQ(content(path()), source);
}

TEST_P(FileRotationTest, ThroughALinkTheFileIsRenamedAndNotTheLink) {
  fs::create_directory(scratch / "disk");
  fs::create_symlink(scratch / "disk/real", path());
  if (compressed()) {
    fs::remove(path());
    fs::create_symlink(scratch / "disk/real.zst", path());
  }
  lines(200);
  const std::string first = source;
  commit();
  lines(10);
  commit();
  EXPECT_TRUE(fs::is_symlink(path()));
  EXPECT_EQ(content(scratch / (compressed() ? "disk/real.20270115T080000Z.zst" : "disk/real.20270115T080000Z")), first);
  EXPECT_EQ(first + content(path()), source);
}

TEST_P(FileRotationTest, ManyFilesAtOnceAreRotatedInTurnWithoutAnyLines) {
  use(compressed() ? "{basename}.log.zst" : "{basename}.log");
  rotation = {0, 60s};
  crash();
  for (std::uint64_t n = 2; n < 302; ++n) {
    const StreamMeta& one = stream(n);
    open(one);
    ASSERT_TRUE(write(one, 0, "text\n"));
    if (n % 50 == 0) commit();
  }
  commit();
  now.ns += 60 * kSecond;
  for (int i = 0; i < 10; ++i) commit();
  std::size_t rotated = 0;
  for (const auto& file : others()) rotated += file.find("20270115T080100Z") != std::string::npos ? 1U : 0U;
  EXPECT_EQ(rotated, 300U);
  EXPECT_EQ(others().size(), 300U);
}

class CompressedFileTest : public FileRotationTest {};
INSTANTIATE_TEST_SUITE_P(, CompressedFileTest, testing::Values("out.log.zst"), kind);

TEST_P(CompressedFileTest, AfterEachCommitItHoldsExactlyTheCommittedLines) {
  begin_with({});
  for (int i = 0; i < 20; ++i) {
    lines(i % 3 == 0 ? 1 : 50);
    commit();
    ASSERT_EQ(content(path()), source);
    ASSERT_EQ(store->outputs(sink->key()).at(path()).length, fs::file_size(path()));
    if (i % 5 == 4) crash();
  }
}

TEST_P(CompressedFileTest, ARestartCutsOffTheFramesThatWereNotCommitted) {
  begin_with({});
  lines(100);
  commit();
  const auto committed = fs::file_size(path());
  const std::string committed_lines = source;
  lines(20'000);
  ASSERT_GT(fs::file_size(path()), committed) << "much between two commits is written meanwhile";
  test::append(path(), "half of a fra");
  crash();
  EXPECT_LT(from, source.size());
  deliver();
  commit();
  EXPECT_EQ(content(path()), source);
}

TEST_P(CompressedFileTest, MuchBetweenTwoCommitsIsSeveralFramesAndLittleMemory) {
  begin_with({});
  lines(100'000);  // some MB
  const std::string bytes = test::contents(path());
  std::size_t frames = 0;
  for (std::size_t at = 0; at < bytes.size(); ++frames) {
    at += ZSTD_findFrameCompressedSize(bytes.data() + at, bytes.size() - at);
  }
  EXPECT_GE(frames, source.size() / (OutputFile::kBufferBytes + kChunk) - 1);
  EXPECT_GT(unpacked(bytes)->size() + OutputFile::kBufferBytes + kChunk, source.size()) << "little waits in memory";
  commit();
  EXPECT_EQ(content(path()), source);
}

TEST_P(CompressedFileTest, AFileOfUnknownOriginIsRenamedBecauseItMayEndWithinAFrame) {
  begin_with({});
  lines(10);
  commit();
  sink.reset();
  store.reset();
  for (const char* file : {"cursors.db", "cursors.db-wal", "cursors.db-shm"})
    fs::remove(scratch.path() / "state" / file);
  test::append(path(), "half of a fra");
  const std::string before = test::contents(path());
  crash();
  deliver();
  commit();
  EXPECT_EQ(content(path()), source);
  ASSERT_EQ(others().size(), 1U);
  EXPECT_EQ(test::contents(scratch / *others().begin()), before);
}

TEST(RotationTest, ComesByLengthOrByAgeAndNeverOfAnEmptyFile) {
  const WallTime began{1000 * kSecond};
  const auto after = [&](std::int64_t seconds) { return WallTime{began.ns + seconds * kSecond}; };
  EXPECT_FALSE((Rotation{}.due(1 << 30, began, after(1'000'000))));
  EXPECT_FALSE((Rotation{100, {}}.due(99, began, after(1'000'000))));
  EXPECT_TRUE((Rotation{100, {}}.due(100, began, began)));
  EXPECT_FALSE((Rotation{100, 10s}.due(99, began, after(9))));
  EXPECT_TRUE((Rotation{100, 10s}.due(99, began, after(10))));
  EXPECT_TRUE((Rotation{100, 10s}.due(100, began, after(0))));
  EXPECT_FALSE((Rotation{100, 10s}.due(0, began, after(10))));
}

}  // namespace
}  // namespace fantail
