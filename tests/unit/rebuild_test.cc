#include "producer/rebuild.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "common/base/digest.h"
#include "tests/support/scratch_directory.h"
#include "tests/support/seeded.h"

namespace fantail {
namespace {

/// Real files, and consumers that tell what they know of the streams which these were.
class RebuildTest : public testing::Test {
 protected:
  using Consumers = std::vector<std::vector<wire::StreamInfo>>;

  std::string path(const std::string& name) { return files / name; }
  std::string write(const std::string& name, std::size_t bytes) {
    const std::string text = chance.text(bytes);
    test::append(path(name), text);
    return text;
  }
  /// A stream of that file as a consumer knows it which has committed so much. `head`: of its beginning was told.
  wire::StreamInfo known(std::uint64_t n, const std::string& name, std::uint64_t committed, std::size_t head = 4096) {
    wire::StreamInfo info;
    info.stream = {1, n};
    info.sequence = n;
    info.topic = "log";
    info.path = path(name);
    info.committed = info.sent = info.head = {committed};
    info.first_seen = {static_cast<std::int64_t>(n)};
    const FileKey key = key_of(info.path).value();
    const std::string text = test::contents(info.path).substr(0, head);
    info.file = {key.device, key.inode, static_cast<std::uint32_t>(text.size()), digest(as_bytes(text))};
    return info;
  }
  static wire::StreamInfo sealed(wire::StreamInfo info, std::uint64_t final_length) {
    info.sealed = true;
    info.head = {final_length};
    return info;
  }
  Rebuilt rebuilt(const Consumers& consumers, bool from_end = false) {
    FilesThere there;
    // Selected: *.log
    there.selects = [](const std::string& p) { return p.ends_with(".log"); };
    std::set<FileKey> present;
    for (const auto& entry : std::filesystem::directory_iterator(files.path())) {
      if (!there.selects(entry.path())) continue;
      const FileKey key = key_of(entry.path()).value();
      there.selected.emplace(key, entry.path());
      present.insert(key);
    }
    Recollection told(std::move(present));
    std::uint64_t peer = 0;
    for (const auto& streams : consumers) {
      told.consumer_up(PeerId{++peer}, true, MonoTime{});
      told.asked(PeerId{peer}, MonoTime{});
      told.told(PeerId{peer}, {streams, true, false}, MonoTime{});
    }
    return rebuild(told, there, from_end);
  }
  /// "stream@cursor name" of what goes on, "stream gone: length" of what does not.
  static std::vector<std::string> told(const Rebuilt& r) {
    std::vector<std::string> out;
    for (const auto& s : r.streams) {
      const std::string n = std::to_string(s.info.stream.lo);
      if (s.gone) {
        out.push_back(n + " " + std::string(wire::to_string(*s.gone)) + ": " + std::to_string(s.info.head.raw));
      } else {
        out.push_back(n + "@" + std::to_string(s.fingerprint.cursor.raw) + " " +
                      std::filesystem::path(s.current_path).filename().string());
      }
    }
    std::sort(out.begin(), out.end());
    return out;
  }

  test::ScratchDirectory files;
  test::Chance chance{1};
};

using testing::ElementsAre;
using testing::IsEmpty;
using testing::StartsWith;

TEST_F(RebuildTest, AStreamGoesOnWhereItsConsumerIs) {
  write("a.log", 10'000);
  wire::StreamInfo info = known(7, "a.log", 6'000);
  write("a.log", 5'000);  // grown since
  const Rebuilt r = rebuilt({{info}});
  ASSERT_THAT(told(r), ElementsAre("7@6000 a.log"));
  EXPECT_EQ(r.recovered, 1U);
  EXPECT_EQ(r.last_sequence, 7U);
  const StreamRecord& s = r.streams[0];
  EXPECT_EQ(s.info.sequence, 7U);
  EXPECT_EQ(s.info.topic, "log");
  EXPECT_EQ(s.info.path, path("a.log"));
  EXPECT_EQ(s.info.base, FileOffset{0});
  EXPECT_EQ(s.info.sent, FileOffset{6'000});
  EXPECT_EQ(s.info.head, FileOffset{6'000});
  EXPECT_EQ(s.info.first_seen, WallTime{7});
  EXPECT_EQ(s.info.committed, FileOffset{}) << "is for consumers to tell";
  EXPECT_FALSE(s.info.sealed);
  // What it is read on with holds for the file, and the bytes before the cursor are remembered from it.
  TailedFile file(s.current_path, s.key, s.fingerprint);
  EXPECT_EQ(file.look(true)->size, 15'000U);
  EXPECT_EQ(s.fingerprint.head_length, 4096U);
  EXPECT_EQ(s.fingerprint.tail_digest, digest(as_bytes(test::contents(path("a.log")).substr(5'936, 64))));
}

TEST_F(RebuildTest, OfTwoConsumersTheOneFurtherBehindDecides) {
  write("a.log", 10'000);
  for (const bool swapped : {false, true}) {
    Consumers consumers = {{known(1, "a.log", 9'000)}, {known(1, "a.log", 2'000)}};
    if (swapped) std::swap(consumers[0], consumers[1]);
    EXPECT_THAT(told(rebuilt(consumers)), ElementsAre("1@2000 a.log"));
  }
}

TEST_F(RebuildTest, AConsumerThatHasCommittedNothingMakesItBeginAtTheBeginning) {
  write("a.log", 10'000);
  EXPECT_THAT(told(rebuilt({{known(1, "a.log", 9'000)}, {known(1, "a.log", 0)}})), ElementsAre("1@0 a.log"));
}

TEST_F(RebuildTest, ConsumersMayKnowDifferentStreamsAndBeginnings) {
  write("a.log", 100);
  const wire::StreamInfo early = known(1, "a.log", 50, 100);
  write("a.log", 10'000);
  write("b.log", 10);
  EXPECT_THAT(told(rebuilt({{early, known(2, "b.log", 10)}, {known(1, "a.log", 8'000)}})),
              ElementsAre("1@50 a.log", "2@10 b.log"));
}

TEST_F(RebuildTest, ARenamedFileIsFoundByItsInode) {
  write("a.log", 10'000);
  const auto info = known(1, "a.log", 6'000);
  std::filesystem::rename(path("a.log"), path("b.log"));
  write("a.log", 10'000);
  const Rebuilt r = rebuilt({{info}});
  EXPECT_THAT(told(r), ElementsAre("1@6000 b.log"));
  EXPECT_EQ(r.streams[0].info.path, path("a.log")) << "the name of the stream stays";
}

TEST_F(RebuildTest, OneThatIsRotatedOutOfThePatternIsFoundInItsDirectory) {
  write("a.log", 10'000);
  const auto info = known(1, "a.log", 6'000);
  std::filesystem::rename(path("a.log"), path("a.1"));
  EXPECT_THAT(told(rebuilt({{info}})), ElementsAre("1@6000 a.1"));
}

// ---- a word of a consumer opens no file and mixes none

TEST_F(RebuildTest, AFileThatNobodySelectedIsTakenOnlyWhenItsWholeBeginningIsKnown) {
  write("secret", 10'000);
  wire::StreamInfo guess = known(1, "secret", 1, 1);
  guess.path = path("a.log");
  EXPECT_THAT(told(rebuilt({{guess}})), IsEmpty());
  wire::StreamInfo blind = known(1, "secret", 0, 0);
  blind.path = path("a.log");
  EXPECT_THAT(told(rebuilt({{blind}})), IsEmpty());
}

TEST_F(RebuildTest, ADirectoryWhereNothingIsSelectedIsNotSearched) {
  write("secret", 10'000);
  const Rebuilt r = rebuilt({{known(1, "secret", 100)}});
  EXPECT_THAT(told(r), IsEmpty());
  EXPECT_EQ(r.ignored, 1U);
}

TEST_F(RebuildTest, AnotherInodeOrAnotherBeginningIsAnotherFile) {
  write("a.log", 10'000);
  wire::StreamInfo other_inode = known(1, "a.log", 6'000);
  other_inode.file.inode += 1'000'000;
  wire::StreamInfo other_device = known(2, "a.log", 6'000);
  ++other_device.file.device;
  wire::StreamInfo other_head = known(3, "a.log", 6'000);
  ++other_head.file.head_digest;
  for (const auto& info : {other_inode, other_device, other_head}) {
    const Rebuilt r = rebuilt({{info}});
    EXPECT_EQ(r.recovered, 0U) << info.sequence;
    EXPECT_THAT(told(r), IsEmpty()) << info.sequence;
    EXPECT_EQ(r.over.size(), 1U) << info.sequence;
  }
}

TEST_F(RebuildTest, ACursorBeyondTheEndMeansAnotherFile) {
  write("a.log", 10'000);
  EXPECT_EQ(rebuilt({{known(1, "a.log", 10'000)}}).recovered, 1U);
  EXPECT_EQ(rebuilt({{known(1, "a.log", 10'001)}}).recovered, 0U);
  EXPECT_EQ(rebuilt({{known(1, "a.log", 10'001)}, {known(1, "a.log", 5'000)}}).recovered, 0U)
      << "one that agrees does not make up for one that does not";
  EXPECT_EQ(rebuilt({{sealed(known(1, "a.log", 5'000), 10'001)}}).recovered, 0U);
}

TEST_F(RebuildTest, BytesThatWereReadAndOfWhichNoBeginningIsKnownAreNobodys) {
  write("a.log", 10'000);
  EXPECT_EQ(rebuilt({{known(1, "a.log", 6'000, 0)}}).recovered, 0U);
  EXPECT_EQ(rebuilt({{known(1, "a.log", 0, 0)}}).recovered, 1U) << "nothing was read";
}

TEST_F(RebuildTest, ConsumersThatContradictEachOtherAreNotBelieved) {
  write("a.log", 10'000);
  wire::StreamInfo wrong = known(1, "a.log", 6'000);
  ++wrong.file.head_digest;
  EXPECT_EQ(rebuilt({{known(1, "a.log", 6'000)}, {wrong}}).recovered, 0U);
  wire::StreamInfo shorter = known(1, "a.log", 6'000, 10);
  ++shorter.file.head_digest;
  EXPECT_EQ(rebuilt({{known(1, "a.log", 6'000)}, {shorter}}).recovered, 0U) << "the file agrees with one of them only";
}

TEST_F(RebuildTest, NoBytesAreLeftOutOnAConsumersWord) {
  write("a.log", 10'000);
  wire::StreamInfo late = known(1, "a.log", 6'000);
  late.base = {6'000};
  const Rebuilt r = rebuilt({{late}});
  ASSERT_EQ(r.recovered, 1U);
  EXPECT_EQ(r.streams[0].info.base, FileOffset{0});
  const Rebuilt from_end = rebuilt({{late}}, true);
  EXPECT_EQ(from_end.streams[0].info.base, FileOffset{6'000}) << "there it is the operator who wants it so";
}

TEST_F(RebuildTest, AnUnreadableFileWaitsForBeingReadable) {
  write("a.log", 10'000);
  const auto info = known(1, "a.log", 6'000);
  std::filesystem::permissions(path("a.log"), std::filesystem::perms::none);
  if (::access(path("a.log").c_str(), R_OK) == 0) GTEST_SKIP() << "root reads everything";
  const Rebuilt r = rebuilt({{info}});
  ASSERT_THAT(told(r), ElementsAre("1@0 a.log"));
  EXPECT_EQ(r.streams[0].fingerprint.head_length, 4096U);
}

// ---- several streams of one inode

TEST_F(RebuildTest, OfTheStreamsOfOneInodeTheNewestGoesOn) {
  write("a.log", 10'000);
  EXPECT_THAT(told(rebuilt({{sealed(known(1, "a.log", 500), 500), known(2, "a.log", 6'000)}})),
              ElementsAre("2@6000 a.log"));
  EXPECT_THAT(told(rebuilt({{known(2, "a.log", 6'000), known(1, "a.log", 500)}})), ElementsAre("2@6000 a.log"));
}

TEST_F(RebuildTest, WhatWasSealedBeforeANewerOneBeganDoesNotComeBack) {
  write("a.log", 10'000);
  wire::StreamInfo newer = known(2, "a.log", 6'000);
  ++newer.file.head_digest;
  EXPECT_EQ(rebuilt({{sealed(known(1, "a.log", 500), 500), newer}}).recovered, 0U);
}

TEST_F(RebuildTest, ANewerOneThatIsMadeUpDoesNotHideAnOlderOne) {
  write("a.log", 10'000);
  wire::StreamInfo made_up = known(2, "a.log", 6'000);
  ++made_up.file.head_digest;
  EXPECT_THAT(told(rebuilt({{known(1, "a.log", 500)}, {made_up}})), ElementsAre("1@500 a.log"));
}

TEST_F(RebuildTest, OneThatABatchTookForCompleteGoesOn) {
  write("a.log", 10'000);
  const auto info = sealed(known(1, "a.log", 10'000), 10'000);
  write("a.log", 10);
  EXPECT_THAT(told(rebuilt({{info}})), ElementsAre("1@10000 a.log"));
}

TEST_F(RebuildTest, SequencesAreUniqueWhateverIsTold) {
  for (const char* name : {"a.log", "b.log", "c.log"}) write(name, 100);
  Consumers consumers = {{known(1, "a.log", 100)}, {known(2, "b.log", 100)}, {known(3, "c.log", 100)}};
  for (auto& streams : consumers) streams[0].sequence = 5;
  const Rebuilt r = rebuilt(consumers);
  std::set<std::uint64_t> sequences;
  for (const auto& s : r.streams) sequences.insert(s.info.sequence);
  EXPECT_EQ(sequences, (std::set<std::uint64_t>{5, 6, 7}));
  EXPECT_EQ(r.last_sequence, 7U);
}

// ---- files that are gone

TEST_F(RebuildTest, AGoneFileOfWhichSomebodyMissesSomethingIsTold) {
  write("a.log", 10'000);
  const Consumers consumers = {{known(1, "a.log", 9'000)}, {known(1, "a.log", 2'000)}};
  std::filesystem::remove(path("a.log"));
  const Rebuilt r = rebuilt(consumers);
  ASSERT_EQ(r.streams.size(), 1U);
  EXPECT_THAT(told(r)[0], StartsWith("1 deleted"));
  EXPECT_EQ(r.streams[0].info.head, FileOffset{9'000});
  EXPECT_EQ(r.streams[0].info.base, FileOffset{0}) << "a consumer that is not there may miss more";
  EXPECT_TRUE(r.streams[0].info.sealed);
  EXPECT_EQ(r.recovered, 0U);
}

TEST_F(RebuildTest, SoIsOneWhoseFinalLengthIsKnownAndNotReached) {
  write("a.log", 10'000);
  const Consumers consumers = {{sealed(known(1, "a.log", 2'000), 10'000)}};
  std::filesystem::remove(path("a.log"));
  const Rebuilt r = rebuilt(consumers);
  ASSERT_EQ(r.streams.size(), 1U);
  EXPECT_EQ(r.streams[0].info.head, FileOffset{10'000});
}

TEST_F(RebuildTest, ARewrittenFileIsTold) {
  write("a.log", 10'000);
  const Consumers consumers = {{known(1, "a.log", 9'000)}, {known(1, "a.log", 2'000)}};
  test::rewrite(path("a.log"), chance.text(10'000));
  const Rebuilt r = rebuilt(consumers);
  ASSERT_EQ(r.streams.size(), 1U);
  EXPECT_EQ(r.streams[0].gone, wire::LossReason::kTruncated);
}

TEST_F(RebuildTest, AGoneFileThatEverybodyHasIsOverAndIsNotEntered) {
  write("a.log", 10'000);
  const auto info = known(1, "a.log", 9'000);
  std::filesystem::remove(path("a.log"));
  const Rebuilt r = rebuilt({{info}, {info}});
  EXPECT_THAT(told(r), IsEmpty());
  ASSERT_EQ(r.over.size(), 1U);
  EXPECT_EQ(r.over[0].head, FileOffset{9'000});
  EXPECT_TRUE(r.over[0].sealed);
  EXPECT_EQ(r.last_sequence, 1U);
}

}  // namespace
}  // namespace fantail
