#include "consumer/file_sink.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>

#include "tests/support/seeded.h"
#include "tests/unit/file_sink_fixture.h"

namespace fantail {
namespace {

/// As long as it lives no file of this process gets longer: writing beyond fails, as on a full disk.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) : before_(::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &limit_);
    const rlimit full{bytes, limit_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &full);
  }
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &limit_);
    ::signal(SIGXFSZ, before_);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit limit_{};
  void (*before_)(int);
};

/// As long as it lives this process gets no more descriptors.
class NoDescriptors {
 public:
  NoDescriptors() {
    ::getrlimit(RLIMIT_NOFILE, &limit_);
    const rlimit none{0, limit_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &none);
  }
  ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &limit_); }
  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;

 private:
  rlimit limit_{};
};

TEST_F(FileSinkTest, WithoutADescriptorForTheDirectoryThereIsNoCheckpointYet) {
  const StreamMeta& a = stream(1);
  open(a);
  write(a, 0, "one\n");
  ASSERT_TRUE(sink->flush({}));
  {
    const NoDescriptors none;
    EXPECT_FALSE(sink->prepare_checkpoint());
  }
  EXPECT_EQ(take_checkpoint().files.size(), 2U) << "the file, and the directory with its entry";
}

TEST_F(FileSinkTest, NoMoreThan256FilesStayOpen) {
  use("{topic}.log");
  for (std::uint64_t n = 1; n <= 300; ++n) {
    const StreamMeta& each = stream(n, "t" + std::to_string(n));
    open(each);
    ASSERT_TRUE(write(each, 0, "one\n"));
  }
  commit();
  std::size_t descriptors = 0;
  for (const auto& fd : fs::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    descriptors += fs::read_symlink(fd.path(), gone).string().ends_with(".log") ? 1 : 0;
  }
  EXPECT_LE(descriptors, 256U);
  for (const auto& each : metas) ASSERT_TRUE(write(each, 4, "two\n"));
  commit();
  for (const auto& each : metas) ASSERT_EQ(in(each.topic + ".log"), "one\ntwo\n");
}

TEST_F(FileSinkTest, MergesStreamsByWholeLines) {
  const StreamMeta& a = stream(1);
  const StreamMeta& b = stream(2);
  open(a);
  open(b);
  write(a, 0, "a1\na");
  write(b, 0, "b1\nb");
  write(a, 4, "2\n");
  write(b, 4, "2\n");
  EXPECT_EQ(in("out.log"), "a1\nb1\na2\nb2\n");
}

TEST_F(FileSinkTest, ARestartCutsTheFileToWhatWasCommittedAndGoesOnThere) {
  const StreamMeta& a = stream(1);
  open(a);
  write(a, 0, "one\ntwo\nthr");
  commit();
  write(a, 11, "ee\nfour\n");
  ASSERT_EQ(in("out.log"), "one\ntwo\nthree\nfour\n");
  restart();
  EXPECT_EQ(open(a), 8U) << "the last whole record that was committed";
  write(a, 8, "three\nfour\n");
  EXPECT_EQ(in("out.log"), "one\ntwo\nthree\nfour\n");
}

TEST_F(FileSinkTest, WhatWasInTheFileBeforeStaysThere) {
  test::append(scratch / "out.log", "before\n");
  const StreamMeta& a = stream(1);
  open(a);
  write(a, 0, "lost\n");
  EXPECT_EQ(in("out.log"), "before\nlost\n");
  restart();
  open(a);
  write(a, 0, "again\n");
  EXPECT_EQ(in("out.log"), "before\nagain\n");
}

TEST_F(FileSinkTest, TheLastLineComesWhenItsStreamIsSealed) {
  const StreamMeta& a = stream(1);
  open(a);
  write(a, 0, "no newline");
  EXPECT_EQ(in("out.log"), "");
  ASSERT_TRUE(sink->seal(a, {10}));
  EXPECT_EQ(in("out.log"), "no newline\n");
  const Checkpoint checkpoint = sink->checkpoint();
  ASSERT_EQ(checkpoint.positions.size(), 1U);
  EXPECT_EQ(checkpoint.positions[0].offset, FileOffset{10});
}

TEST_F(FileSinkTest, ALossIsWrittenWhereItIs) {
  const StreamMeta& a = stream(1);
  open(a);
  write(a, 0, "one\ntw");
  ASSERT_TRUE(sink->lose(a, {{6}, {10}}, wire::LossReason::kDeleted));
  write(a, 10, "ee\n");
  EXPECT_THAT(in("out.log"), testing::MatchesRegex("one\ntw\n.*bytes 6 to 10 of host:/log/1 are lost.*\nee\n"));
}

TEST_F(FileSinkTest, ATemplateMakesAFileForEachOfItsValues) {
  use("{topic}/{node}-{basename}.log");
  const StreamMeta& a = stream(1, "web");
  const StreamMeta& b = stream(2, "mail");
  open(a);
  open(b);
  write(a, 0, "a\n");
  write(b, 0, "b\n");
  EXPECT_EQ(in("web/host-1.log"), "a\n");
  EXPECT_EQ(in("mail/host-2.log"), "b\n");
}

TEST_F(FileSinkTest, ADatedOutputChangesWithTheDayOfTheBytes) {
  use("{date}.log");
  const StreamMeta& a = stream(1);
  open(a);
  write(a, 0, "one\n", 0);
  write(a, 4, "two\n", 86'400'000'000'000);
  EXPECT_EQ(in("1970-01-01.log"), "one\n");
  EXPECT_EQ(in("1970-01-02.log"), "two\n");
}

TEST_F(FileSinkTest, MoreOutputsThanDescriptorsAllGetTheirLines) {
  use("{basename}.log");
  for (int round = 0; round < 2; ++round) {
    for (std::uint64_t n = 1; n <= 400; ++n) {
      const StreamMeta& meta = round == 0 ? stream(n) : *std::next(metas.begin(), static_cast<std::ptrdiff_t>(n - 1));
      if (round == 0) open(meta);
      ASSERT_TRUE(write(meta, round == 0 ? 0U : 2U, "x\n"));
      if (n % 50 == 0) commit();
    }
  }
  for (std::uint64_t n = 1; n <= 400; ++n) ASSERT_EQ(in(std::to_string(n) + ".log"), "x\nx\n") << n;
}

TEST_F(FileSinkTest, AnOutputIsNotClosedBeforeItsCheckpointIsStored) {
  use("{basename}.log");
  const StreamMeta& first = stream(1);
  open(first);
  write(first, 0, "x\n");
  const Checkpoint checkpoint = take_checkpoint();
  for (std::uint64_t n = 2; n <= 300; ++n) {
    const StreamMeta& other = stream(n);
    open(other);
    ASSERT_TRUE(write(other, 0, "x\n"));
  }
  write(first, 2, "y\n");
  save(checkpoint);
  sink->stored();
  EXPECT_EQ(in("1.log"), "x\ny\n");
}

TEST_F(FileSinkTest, AFileThatSomebodyEmptiesIsGoneOnWithAtItsEnd) {
  const StreamMeta& a = stream(1);
  open(a);
  write(a, 0, "one\n");
  commit();
  test::rewrite(scratch / name, "");
  write(a, 4, "two\n");
  EXPECT_EQ(in(name), "two\n") << "and no zeros in front";
  commit();
  restart();
  open(a);
  write(a, 8, "three\n");
  EXPECT_EQ(in(name), "two\nthree\n");
}

TEST_F(FileSinkTest, AFullDiskTakesNothingTwiceAndLosesNothing) {
  for (const std::uint64_t seed : test::seeds(30)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance chance(seed);
    use("full-" + std::to_string(seed) + (seed % 2 == 0 ? ".log" : ".zst"));
    const StreamMeta& a = stream(seed);
    open(a);
    test::append(scratch / name, "");
    std::string all;
    std::size_t done = 0;
    for (int i = 0; i < 200; ++i) {
      const std::string more = chance.text(chance.between(std::size_t{1}, std::size_t{40'000})) + "\n";
      all += more;
      std::optional<FullDisk> full;
      if (chance.with(0.5))
        full.emplace(std::filesystem::file_size(scratch / name) + chance.between(std::size_t{0}, std::size_t{5000}));
      if (write(a, done, std::string_view(all).substr(done))) {
        done = all.size();
      }
      if (chance.with(0.3)) (void)sink->flush({});
      if (chance.with(0.1)) (void)sink->prepare_checkpoint();
    }
    while (done < all.size()) done = write(a, done, std::string_view(all).substr(done)) ? all.size() : done;
    commit();
    const std::string bytes = in(name);
    EXPECT_TRUE((seed % 2 == 0 ? bytes : unpacked(bytes)) == all);
  }
}

TEST_F(FileSinkTest, AFullDiskIsToldBeforeMemoryIs) {
  const StreamMeta& a = stream(1);
  open(a);
  write(a, 0, "x\n");
  const FullDisk full(2);
  const std::string line = std::string(9999, 'x') + "\n";
  std::size_t taken = 2;
  while (taken < 10'000'000 && write(a, taken, line)) taken += line.size();
  EXPECT_LT(taken, 1'000'000U);
}

TEST_F(FileSinkTest, WhileSomethingWaitsInMemoryItIsNotDrained) {
  const StreamMeta& a = stream(1);
  open(a);
  write(a, 0, "text\n");
  EXPECT_FALSE(sink->drained());
  {
    const FullDisk full(2);
    EXPECT_FALSE(sink->flush({}));
    EXPECT_FALSE(sink->drained());
  }
  EXPECT_TRUE(sink->flush({}));
  EXPECT_TRUE(sink->drained());
  EXPECT_EQ(in("out.log"), "text\n");
}

TEST_F(FileSinkTest, AnOutputThatCannotBeOpenedTakesNothing) {
  test::append(scratch / "file", "");
  use("file/below.log");
  const StreamMeta& a = stream(1);
  open(a);
  EXPECT_FALSE(write(a, 0, "text\n"));
  std::filesystem::remove(scratch / "file");
  EXPECT_TRUE(write(a, 0, "text\n"));
  EXPECT_EQ(in("file/below.log"), "text\n");
}

TEST_F(FileSinkTest, TwoConsumersDoNotWriteToOneFile) {
  const StreamMeta& meta = stream(1);
  open(meta);
  ASSERT_TRUE(sink->write(meta, {0}, as_bytes(std::string_view("mine\n")), {}));

  std::string set_aside;
  const auto other_state = StateDirectory::open(scratch.path() / "other");
  auto other_store = CursorStore::open(*other_state, set_aside);
  const auto other =
      FileSink::open(*PathTemplate::parse(scratch / name), *RecordFormat::parse(format), rules, rotation, *other_store);
  ASSERT_TRUE((*other)->open_stream(meta, {}));
  const auto refused = (*other)->write(meta, {0}, as_bytes(std::string_view("theirs\n")), {});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().context, testing::HasSubstr("another consumer writes to it"));

  sink.reset();
  EXPECT_TRUE((*other)->write(meta, {0}, as_bytes(std::string_view("theirs\n")), {}));
}

}  // namespace
}  // namespace fantail
