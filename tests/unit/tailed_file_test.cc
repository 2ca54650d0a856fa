#include "producer/tailed_file.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "common/base/digest.h"
#include "tests/support/scratch_directory.h"
#include "tests/support/seeded.h"

namespace fantail {
namespace {

/// A file on disk, and the same read as a stream: read() as the broadcast does, fetch() anywhere.
class TailedFileTest : public testing::Test {
 protected:
  void open() { file.emplace(path, *key_of(path), Fingerprint{}); }
  /// Reads on from the cursor; "replaced" or another error in words.
  std::string read(std::size_t most = 1'000'000) {
    std::string buffer(most, '\0');
    const FileOffset at = file->fingerprint().cursor;
    const auto n = file->read_at(at, std::as_writable_bytes(std::span(buffer.data(), buffer.size())));
    if (!n) return word(n.error());
    buffer.resize(*n);
    if (*n > 0) file->mark_sent(at + *n, as_bytes(buffer));
    return buffer;
  }
  std::string fetch(std::uint64_t offset, std::size_t bytes) {
    std::string buffer(bytes, '\0');
    const auto n = file->read_at({offset}, std::as_writable_bytes(std::span(buffer.data(), buffer.size())));
    if (!n) return word(n.error());
    buffer.resize(*n);
    return buffer;
  }
  static std::string word(const Error& error) {
    if (error.code == ErrorCode::kNotFound) return "not found";
    return error.code == ErrorCode::kReplaced ? "replaced" : "error";
  }
  std::string look(bool verify = true) {
    const auto seen = file->look(verify);
    if (!seen) return word(seen.error());
    return std::to_string(seen->size) + (seen->deleted() ? " deleted" : "");
  }
  /// As after a restart: nothing but the fingerprint is known.
  void restart() {
    const Fingerprint known = file->fingerprint();
    const FileKey key = file->key();
    file.emplace(path, key, known);
  }
  void begin_with(const std::string& text) {
    test::append(path, text);
    open();
    ASSERT_EQ(read(), text);
  }

  test::ScratchDirectory directory;
  test::Chance chance{1};
  const std::string path = directory / "a.log";
  std::optional<TailedFile> file;
};

TEST_F(TailedFileTest, GrowingIsFollowed) {
  begin_with("one\n");
  EXPECT_EQ(read(), "");
  test::append(path, "two\n");
  EXPECT_EQ(look(), "8");
  EXPECT_EQ(read(), "two\n");
  EXPECT_EQ(fetch(2, 4), "e\ntw");
}

TEST_F(TailedFileTest, GrowsByAnyPiecesOverRestartsToo) {
  test::append(path, "");
  open();
  std::string all;
  std::string got;
  for (int i = 0; i < 200; ++i) {
    const std::string more = chance.text(chance.between(std::size_t{1}, std::size_t{150}));
    test::append(path, more);
    all += more;
    if (chance.with(0.3)) restart();
    if (chance.with(0.3)) file->close();
    got += read(chance.between(std::size_t{1}, std::size_t{200}));
    ASSERT_EQ(look(), std::to_string(all.size()));
  }
  while (got.size() < all.size()) got += read();
  EXPECT_EQ(got, all);
}

TEST_F(TailedFileTest, TruncatingIsNoticed) {
  begin_with(chance.text(1000));
  test::rewrite(path, "");
  EXPECT_EQ(look(), "replaced");
  EXPECT_EQ(read(), "replaced");
  EXPECT_EQ(fetch(0, 100), "replaced");
}

TEST_F(TailedFileTest, TruncatingAndRefillingToMoreIsNoticed) {
  begin_with(chance.text(1000));
  test::rewrite(path, chance.text(5000));
  EXPECT_EQ(look(), "replaced");
  EXPECT_EQ(read(), "replaced");
  EXPECT_EQ(fetch(0, 100), "replaced");
}

TEST_F(TailedFileTest, TruncatingAndRefillingToTheSameSizeIsNoticed) {
  begin_with(chance.text(1000));
  test::rewrite(path, chance.text(1000));
  EXPECT_EQ(look(false), "replaced");
  EXPECT_EQ(fetch(500, 100), "replaced");
}

TEST_F(TailedFileTest, RewritingTheBeginningInPlaceIsNoticed) {
  begin_with(chance.text(10'000));
  test::write_at(path, 0, "x");
  EXPECT_EQ(look(), "replaced");
  test::append(path, "more");
  EXPECT_EQ(read(), "replaced");
}

TEST_F(TailedFileTest, TheSameBeginningWithAnotherEndIsAnotherIncarnation) {
  const std::string beginning = chance.text(5000);
  begin_with(beginning + chance.text(1000));
  test::rewrite(path, beginning + chance.text(3000));
  EXPECT_EQ(read(), "replaced");
}

TEST_F(TailedFileTest, TheSameEndWithAnotherBeginningIsAnotherIncarnation) {
  const std::string end = chance.text(1000);
  begin_with(chance.text(500) + end);
  test::rewrite(path, chance.text(500) + end + "more");
  EXPECT_EQ(read(), "replaced");
}

TEST_F(TailedFileTest, AnotherFileUnderTheNameIsNoticedOnceTheOldOneIsNotOpen) {
  begin_with("one\n");
  test::append(directory / "new", "two\n");
  std::filesystem::rename(directory / "new", path);
  test::append(path, "three\n");
  EXPECT_EQ(look(), "4 deleted") << "still open: the old file";
  file->close();
  EXPECT_EQ(look(), "not found") << "it may have another name";
  EXPECT_EQ(fetch(0, 4), "not found");
}

TEST_F(TailedFileTest, ItIsKnownWhetherSomebodyCanStillWriteToIt) {
  begin_with("one\n");
  EXPECT_EQ(file->writers(), Writers::kNone);
  {
    const std::ofstream writer(path, std::ios::app);
    EXPECT_EQ(file->writers(), Writers::kSome);
    std::filesystem::remove(path);
    EXPECT_EQ(file->writers(), Writers::kSome);
  }
  EXPECT_EQ(file->writers(), Writers::kNone);
}

TEST_F(TailedFileTest, ADeletedFileIsReadToItsEndWhileItIsOpen) {
  begin_with("one\n");
  test::append(path, "two\n");
  std::filesystem::remove(path);
  EXPECT_EQ(look(), "8 deleted");
  EXPECT_EQ(read(), "two\n");
  EXPECT_EQ(fetch(0, 8), "one\ntwo\n");
}

TEST_F(TailedFileTest, AMissingFileIsNotFound) {
  begin_with("one\n");
  file->close();
  std::filesystem::remove(path);
  const auto seen = file->look(true);
  ASSERT_FALSE(seen);
  EXPECT_EQ(seen.error().code, ErrorCode::kNotFound);
}

TEST_F(TailedFileTest, ARenamedFileIsReadUnderItsNewName) {
  begin_with("one\n");
  file->close();
  std::filesystem::rename(path, directory / "a.log.1");
  file->set_path(directory / "a.log.1");
  test::append(directory / "a.log.1", "two\n");
  EXPECT_EQ(read(), "two\n");
}

TEST_F(TailedFileTest, ARestartRecognisesItsFileAndNotARewrittenOne) {
  begin_with(chance.text(3000));
  restart();
  EXPECT_EQ(look(), "3000");
  restart();
  test::rewrite(path, chance.text(4000));
  EXPECT_EQ(look(), "replaced");
  restart();
  EXPECT_EQ(read(), "replaced");
}

TEST_F(TailedFileTest, WithItsBeginningLearntItIsRecognisedBeforeAnythingWasRead) {
  test::append(path, chance.text(3000));
  open();
  ASSERT_TRUE(file->learn_head());
  restart();
  EXPECT_EQ(read(1000).size(), 1000U);
  EXPECT_EQ(read(100).size(), 100U);
  open();
  ASSERT_TRUE(file->learn_head());
  restart();
  test::rewrite(path, chance.text(4000));
  EXPECT_EQ(look(), "replaced");
  EXPECT_EQ(read(), "replaced");
}

TEST_F(TailedFileTest, CanBeginAtTheEnd) {
  test::append(path, chance.text(10'000));
  open();
  EXPECT_EQ(file->skip_to_end().value(), FileOffset{10'000});
  test::append(path, "new\n");
  EXPECT_EQ(read(), "new\n");
  test::rewrite(path, chance.text(20'000));
  EXPECT_EQ(read(), "replaced");
}

TEST_F(TailedFileTest, WhateverIsDoneToTheFileNoByteOfAnotherIncarnationIsRead) {
  for (const std::uint64_t seed : test::seeds(300)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance dice(seed);
    std::string now = dice.text(dice.between(std::size_t{1}, std::size_t{8000}));
    test::rewrite(path, now);
    open();
    std::string got = read(dice.between(std::size_t{1}, std::size_t{9000}));
    ASSERT_TRUE(now.starts_with(got));
    const std::string first = now;
    const std::size_t kind = dice.between(std::size_t{0}, std::size_t{3});
    const std::string fresh = dice.text(dice.between(std::size_t{1}, std::size_t{12'000}));
    if (kind == 0) {
      test::rewrite(path, fresh);
    } else if (kind == 1) {
      test::write_at(path, 0, fresh);
    } else if (kind == 2) {
      std::filesystem::resize_file(path, dice.between(std::size_t{0}, got.size() - 1));
      test::append(path, fresh);
    } else {
      test::append(path, fresh);
      now = first + fresh;
    }
    if (dice.with(0.5)) restart();
    const std::string more = read();
    const bool grown_only = kind == 3;
    if (grown_only) {
      EXPECT_EQ(got + more, now);
    } else if (more != "replaced") {
      EXPECT_EQ(more, "") << "bytes of another incarnation";
    }
  }
}

TEST_F(TailedFileTest, SkipToGoesOnWhereSomebodyElseStopped) {
  begin_with(chance.text(5'000));
  const std::string all = test::contents(path);
  const Fingerprint read = file->fingerprint();
  // Nothing but the beginning is known of it.
  const Fingerprint head{{0}, read.head_length, read.head_digest, 0};
  file.emplace(path, *key_of(path), head);
  ASSERT_TRUE(file->skip_to({4'500}));
  EXPECT_EQ(this->read(), all.substr(4'500));
  EXPECT_EQ(file->fingerprint(), read);

  file.emplace(path, *key_of(path), head);
  ASSERT_TRUE(file->skip_to({10})) << "the head stays, however little was read";
  EXPECT_EQ(file->fingerprint().head_length, read.head_length);
  EXPECT_EQ(this->read(), all.substr(10));

  file.emplace(path, *key_of(path), head);
  EXPECT_EQ(file->skip_to({5'001}).error().code, ErrorCode::kReplaced) << "shorter";
  test::write_at(path, 100, "x");
  file.emplace(path, *key_of(path), head);
  EXPECT_EQ(file->skip_to({4'500}).error().code, ErrorCode::kReplaced) << "another beginning";
}

}  // namespace
}  // namespace fantail
