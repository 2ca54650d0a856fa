#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "common/base/digest.h"
#include "producer/tailed_file.h"
#include "tests/support/packed.h"
#include "tests/support/scratch_directory.h"
#include "tests/support/seeded.h"

namespace fantail {
namespace {

using Rest = Archive::Rest;

/// A file on disk that may be an archive, read as the tailer does.
class TailedArchiveTest : public testing::Test {
 protected:
  void write(const std::string& bytes) { std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes; }
  void age() {
    std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  }
  void open() {
    file.emplace(path, *key_of(path), Fingerprint{});
    file->read_archive(budget, std::nullopt);
  }
  void restart() {
    const Fingerprint known = file->fingerprint();
    const auto mark = file->archive_mark();
    file.emplace(path, *key_of(path), known);
    file->read_archive(budget, mark);
  }
  /// What a tailer would send next; "replaced" or another error in words.
  std::string read(std::size_t most = 10'000'000) {
    std::string out;
    for (;;) {
      const auto look = file->look(true);
      if (!look) return word(look.error());
      const FileOffset cursor = file->fingerprint().cursor;
      if (look->size > cursor.raw && out.size() < most) {
        std::string piece(std::min(most - out.size(), look->size - cursor.raw), '\0');
        const auto n = file->read_at(cursor, std::as_writable_bytes(std::span(piece.data(), piece.size())));
        if (!n && n.error().code == ErrorCode::kWouldBlock) continue;
        if (!n) return word(n.error());
        piece.resize(*n);
        file->mark_sent(cursor + *n, as_bytes(piece));
        out += piece;
        continue;
      }
      if (out.size() >= most || file->archive_rest() != Rest::kMore) return out;
      if (const auto n = file->read_on(); !n) return word(n.error());
    }
  }
  static std::string word(const Error& error) {
    return error.code == ErrorCode::kReplaced ? "replaced" : "error: " + error.context;
  }

  test::ScratchDirectory directory;
  test::Chance chance{1};
  const std::string path = directory / "a";
  ArchiveBudget budget;
  std::optional<TailedFile> file;
};

TEST_F(TailedArchiveTest, IsReadOnAfterARestartAtAnyByte) {
  const std::string plain = chance.text(1'500'000);
  write(test::gzip(plain.substr(0, 400'000)) + test::gzip(plain.substr(400'000)));
  open();
  std::string got;
  while (got.size() < plain.size()) {
    got += read(chance.between(1, 300'000));
    ASSERT_EQ(got, plain.substr(0, got.size()));
    restart();
  }
  EXPECT_EQ(read(), "");
  EXPECT_TRUE(file->all_decompressed());
  EXPECT_EQ(file->fingerprint().head_length, Fingerprint::kHeadBytes);
}

TEST_F(TailedArchiveTest, OtherContentAtTheNextStartIsAnotherStream) {
  const std::string plain = chance.text(1'000'000);
  std::string other = plain;
  other[499'990] ^= 1;
  write(test::gzip(plain));
  open();
  ASSERT_EQ(read(500'000), plain.substr(0, 500'000));
  write(test::gzip(other));
  restart();
  EXPECT_EQ(read(), "replaced") << "only what is before the cursor differs";
}

TEST_F(TailedArchiveTest, WhatWasAnArchiveAndIsTextNowIsAnotherStream) {
  write(test::gzip("text"));
  open();
  ASSERT_EQ(read(), "text");
  write("text");
  EXPECT_EQ(read(), "replaced");
  restart();
  EXPECT_EQ(read(), "replaced");
}

TEST_F(TailedArchiveTest, ABeginningThatMayBecomeAnArchiveIsWaitedForWhileItIsFresh) {
  write("\x1f");
  open();
  EXPECT_EQ(read(), "");
  EXPECT_EQ(file->archive_rest(), Rest::kIncomplete);
  write(test::gzip("text"));
  EXPECT_EQ(read(), "text");
}

TEST_F(TailedArchiveTest, ABeginningThatNobodyGoesOnWithIsText) {
  write("\x1f");
  age();
  open();
  EXPECT_EQ(read(), "\x1f");
  EXPECT_EQ(file->archive_rest(), std::nullopt);
  test::append(path, "\x8b and so on");
  EXPECT_EQ(read(), "\x8b and so on") << "what began as text stays text";
}

TEST_F(TailedArchiveTest, OneThatWasEmptyIsAnArchiveWhenItBegins) {
  write("");
  open();
  EXPECT_EQ(read(), "");
  write(test::zstd("text"));
  EXPECT_EQ(read(), "text");
}

TEST_F(TailedArchiveTest, WhoHasItOpenForWritingIsStillWriting) {
  write(test::gzip(chance.text(10'000)).substr(0, 100));
  age();
  open();
  read();
  EXPECT_EQ(file->archive_rest(), Rest::kIncomplete);
  EXPECT_FALSE(file->being_written(wall_now()));
  {
    std::ofstream writer(path, std::ios::binary | std::ios::app);
    EXPECT_TRUE(file->being_written(wall_now()));
  }
  EXPECT_FALSE(file->being_written(wall_now()));
}

TEST_F(TailedArchiveTest, FromItsEndOnlyWhatIsAppendedIsSent) {
  write(test::gzip("before"));
  age();
  open();
  ASSERT_TRUE(file->skip_to_end());
  EXPECT_EQ(read(), "");
  EXPECT_TRUE(file->all_decompressed());
  test::append(path, test::gzip("behind"));
  EXPECT_EQ(read(), "behind");
  restart();
  test::append(path, test::gzip(", and more"));
  EXPECT_EQ(read(), ", and more");
  std::string all(16, '\0');
  ASSERT_TRUE(file->read_at({0}, std::as_writable_bytes(std::span(all.data(), all.size()))));
  EXPECT_EQ(all, "behind, and more");
}

}  // namespace
}  // namespace fantail
