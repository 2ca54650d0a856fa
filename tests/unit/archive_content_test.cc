#include "producer/archive_content.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "common/base/digest.h"
#include "producer/file_content.h"
#include "tests/support/packed.h"
#include "tests/support/scratch_directory.h"
#include "tests/support/seeded.h"

namespace fantail {
namespace {

using Step = ArchiveContent::Step;

class ArchiveContentTest : public testing::TestWithParam<ArchiveFormat> {
 protected:
  std::string pack(const std::string& text) { return test::compress(GetParam(), text); }
  void write(const std::string& bytes) { test::rewrite(path, bytes); }
  void age() {
    std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  }
  void open() { content = ArchiveContent::open(path, *key_of(path), budget); }
  /// Until it can tell; returns in how many pieces.
  std::size_t read_through() {
    std::size_t pieces = 0;
    while (content->under_way()) {
      ++pieces;
      if (content->go_on() == Step::kWaits) break;
    }
    return pieces;
  }
  std::string before(std::uint64_t end) {
    std::string out(std::min<std::uint64_t>(end, 64), '\0');
    const auto n = content->read_at(end - out.size(), std::as_writable_bytes(std::span(out.data(), out.size())));
    return n && *n == out.size() ? out : "error";
  }
  static std::string before(const std::string& text, std::uint64_t end) {
    const std::uint64_t n = std::min<std::uint64_t>(end, 64);
    return text.substr(end - n, n);
  }
  Fingerprint fingerprint(const std::string& text, std::size_t cursor) {
    Fingerprint out;
    out.cursor = {cursor};
    out.head_length = static_cast<std::uint32_t>(std::min(text.size(), Fingerprint::kHeadBytes));
    out.head_digest = digest(as_bytes(std::string_view(text).substr(0, out.head_length)));
    out.tail_digest = digest(as_bytes(before(text, cursor)));
    return out;
  }

  test::ScratchDirectory directory;
  test::Chance chance{1};
  const std::string path = directory / "a";
  const std::string plain = chance.text(3'000'000);
  ArchiveBudget budget;
  std::unique_ptr<ArchiveContent> content;
};
INSTANTIATE_TEST_SUITE_P(Formats, ArchiveContentTest, testing::Values(ArchiveFormat::kGzip, ArchiveFormat::kZstd),
                         [](const auto& test) { return test.param == ArchiveFormat::kGzip ? "gzip" : "zstd"; });

TEST_P(ArchiveContentTest, ItsBeginningIsKnownAtOnceAndTheRestWhenItWasReadThroughInPieces) {
  write(pack(plain.substr(0, 1'000'000)) + pack(plain.substr(1'000'000)));
  open();
  EXPECT_TRUE(content->tells({}));
  std::string head(4096, '\0');
  ASSERT_EQ(content->read_at(0, std::as_writable_bytes(std::span(head.data(), head.size()))), 4096U);
  EXPECT_EQ(head, plain.substr(0, 4096));
  std::vector<std::uint64_t> ends = {1, 64, 4096, 4097, 524'288, 524'289, 524'350, 1'000'000, 1'000'063, 2'999'999};
  for (int i = 0; i < 100; ++i) ends.push_back(chance.between(1, plain.size()));
  EXPECT_FALSE(content->tells(ends));
  EXPECT_GE(read_through(), plain.size() / Archive::kStepBytes);
  ASSERT_TRUE(content->tells(ends));
  EXPECT_EQ(content->size(), plain.size());
  for (const std::uint64_t end : ends) EXPECT_EQ(before(end), before(plain, end)) << end;
  EXPECT_EQ(before(plain.size()), before(plain, plain.size()));
  EXPECT_EQ(budget.bytes(), 0U);
}

TEST_P(ArchiveContentTest, WhatWasNotAskedForBeforeIsReadAnew) {
  write(pack(plain));
  open();
  EXPECT_FALSE(content->tells(std::array<std::uint64_t, 1>{2'000'000}));
  EXPECT_EQ(content->go_on(), Step::kMore);
  EXPECT_EQ(content->go_on(), Step::kMore);
  EXPECT_FALSE(content->tells(std::array<std::uint64_t, 1>{500'000})) << "passed already";
  read_through();
  EXPECT_EQ(before(500'000), before(plain, 500'000));
  EXPECT_EQ(before(2'000'000), before(plain, 2'000'000));
  EXPECT_EQ(before(1'000'000), "error");
  EXPECT_FALSE(content->tells(std::array<std::uint64_t, 1>{1'000'000}));
  read_through();
  EXPECT_EQ(before(1'000'000), before(plain, 1'000'000));
}

TEST_P(ArchiveContentTest, AChangedFileIsLookedAtAnew) {
  write(pack(plain));
  open();
  EXPECT_FALSE(content->tells(std::array<std::uint64_t, 1>{5'000}));
  read_through();
  const std::string other = chance.text(10'000);
  write(pack(other));
  content->is_at(path);
  EXPECT_FALSE(content->tells(std::array<std::uint64_t, 1>{5'000}));
  read_through();
  EXPECT_EQ(content->size(), other.size());
  EXPECT_EQ(before(5'000), before(other, 5'000));
}

TEST_P(ArchiveContentTest, OneThatEndsTooEarlyIsWaitedForWhileItMayBeWrittenOn) {
  const std::string packed = pack(plain);
  write(packed.substr(0, packed.size() / 2));
  open();
  EXPECT_FALSE(content->tells(std::array<std::uint64_t, 1>{5'000}));
  read_through();
  EXPECT_TRUE(content->under_way());
  test::append(path, packed.substr(packed.size() / 2));
  read_through();
  EXPECT_EQ(content->size(), plain.size());

  write(packed.substr(0, packed.size() / 2));
  age();
  open();
  EXPECT_FALSE(content->tells(std::array<std::uint64_t, 1>{5'000}));
  read_through();
  EXPECT_FALSE(content->under_way());
  EXPECT_GT(content->size(), plain.size() / 4);
  EXPECT_LT(content->size(), plain.size());
  EXPECT_EQ(before(5'000), before(plain, 5'000));
  EXPECT_EQ(content->mark({content->size()}), ArchiveMark{}) << "nobody can begin there";
}

TEST_P(ArchiveContentTest, IsJudgedAsAFileOfTheSameBytes) {
  write(pack(plain));
  open();
  const std::array ends = {std::uint64_t{2'000'000}};
  EXPECT_FALSE(content->tells(ends));
  read_through();
  KnownStream stream;
  stream.state = KnownStream::State::kGone;
  stream.fingerprint = fingerprint(plain, 2'000'000);
  EXPECT_EQ(Newcomer(*content).compare(stream), Verdict::kBacking);
  ++stream.fingerprint.tail_digest;
  EXPECT_EQ(Newcomer(*content).compare(stream), Verdict::kStranger);

  test::rewrite(directory / "original", plain + "more");
  auto original = FileContent::open(directory / "original", *key_of(directory / "original"));
  ASSERT_TRUE(original);
  stream.state = KnownStream::State::kReadable;
  stream.original = &*original;
  EXPECT_EQ(Newcomer(*content).compare(stream), Verdict::kCopy);
  test::write_at(directory / "original", plain.size() - 1, "?");
  EXPECT_EQ(Newcomer(*content).compare(stream), Verdict::kStranger);
}

TEST_P(ArchiveContentTest, IsNothingOfAFileThatIsNoArchive) {
  write(plain);
  open();
  EXPECT_EQ(content, nullptr);
}

}  // namespace
}  // namespace fantail
