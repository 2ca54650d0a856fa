#include "producer/archive.h"

#include <gmock/gmock.h>
#include <zlib.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "common/base/digest.h"
#include "tests/support/packed.h"
#include "tests/support/scratch_directory.h"
#include "tests/support/seeded.h"

namespace fantail {
namespace {

constexpr std::size_t kMiB = 1024 * 1024;

using test::compress;
using test::gzip;
using test::zstd;

/// An archive on disk, read on with take() as a tailer does, and again with fetch().
class ArchiveTest : public testing::TestWithParam<ArchiveFormat> {
 protected:
  void write(const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
    open();
  }
  void open(FileOffset end = {}, const ArchiveMark& mark = {}) {
    file = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    const auto beginning = test::contents(path).substr(0, kMagicBytes);
    const auto format = archive_format(as_bytes(beginning));
    ASSERT_TRUE(format);
    archive.emplace(*format, budget, end, mark);
  }
  std::uint64_t size() const { return std::filesystem::file_size(path); }

  /// Everything that is there, in pieces; `error` says why it ended early.
  std::string take() {
    std::string all;
    while (archive->rest(size()) == Archive::Rest::kMore) {
      const FileOffset before = archive->end();
      const std::uint64_t cost = archive->decompressed_bytes();
      const auto n = archive->go_on(file.get());
      if (!n) {
        error = n.error();
        return all;
      }
      EXPECT_LE(archive->decompressed_bytes() - cost, kMiB) << "one call is a bounded piece";
      EXPECT_LE(archive->end() - before, Archive::kStepBytes);
      std::string piece(archive->end() - before, '\0');
      const auto got = archive->read(file.get(), before, bytes_of(piece));
      EXPECT_TRUE(got && *got == piece.size()) << "what is new is at hand";
      all += piece;
    }
    return all;
  }
  /// As a fetch does: asks again while it is not there yet.
  std::string fetch(std::uint64_t offset, std::size_t bytes) {
    std::string all;
    while (all.size() < bytes) {
      std::string piece(bytes - all.size(), '\0');
      const std::uint64_t cost = archive->decompressed_bytes();
      const auto n = archive->read(file.get(), {offset + all.size()}, bytes_of(piece));
      EXPECT_LE(archive->decompressed_bytes() - cost, kMiB + piece.size());
      if (!n && n.error().code == ErrorCode::kWouldBlock) continue;
      if (!n) return "error: " + n.error().context;
      if (*n == 0) return all;
      all += piece.substr(0, *n);
    }
    return all;
  }
  static std::span<std::byte> bytes_of(std::string& s) { return std::as_writable_bytes(std::span(s.data(), s.size())); }

  test::ScratchDirectory directory;
  const std::string path = directory / "a";
  UniqueFd file;
  ArchiveBudget budget;
  std::optional<Archive> archive;
  std::optional<Error> error;
};

using Rest = Archive::Rest;

INSTANTIATE_TEST_SUITE_P(Formats, ArchiveTest, testing::Values(ArchiveFormat::kGzip, ArchiveFormat::kZstd),
                         [](const auto& param) { return param.param == ArchiveFormat::kGzip ? "gzip" : "zstd"; });

TEST(ArchiveFormatTest, IsKnownByTheMagicAndBySomeOfItMaybe) {
  const auto format = [](std::string_view text) { return archive_format(as_bytes(text)); };
  EXPECT_EQ(format("\x1f\x8b"), ArchiveFormat::kGzip);
  EXPECT_EQ(format("\x28\xb5\x2f\xfd"), ArchiveFormat::kZstd);
  EXPECT_EQ(format("\x50\x2a\x4d\x18"), ArchiveFormat::kZstd);
  EXPECT_EQ(format("\x5f\x2a\x4d\x18"), ArchiveFormat::kZstd);
  for (const std::string_view text : {"", "\x1f", "\x1fx", "\x28\xb5\x2f", "\x28\xb5\x2fx", "text", "PK\x03\x04",
                                      "\x60\x2a\x4d\x18", "\x50\x2a\x4d", "P*M "}) {
    EXPECT_EQ(format(text), std::nullopt) << text;
  }
  for (const std::string_view text : {"\x1f", "\x28", "\x28\xb5", "\x28\xb5\x2f", "\x57\x2a", "\x57\x2a\x4d"}) {
    EXPECT_TRUE(may_become_archive(as_bytes(text)));
  }
  for (const std::string_view text : {"", "\x1f\x8b", "\x1fx", "\x28\xb5\x2fx", "t", "P", "P*x", "\x57\x2a\x4d\x18"}) {
    EXPECT_FALSE(may_become_archive(as_bytes(text)));
  }
}

TEST_P(ArchiveTest, GivesTheBytesOfAllMembers) {
  for (const std::uint64_t seed : test::seeds(10)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance chance(seed);
    std::string plain;
    std::string packed;
    const std::size_t members = chance.between(1, 5);
    for (std::size_t i = 0; i < members; ++i) {
      const std::string part = chance.text(chance.between(0, chance.with(0.2) ? 2 * kMiB : 3000));
      plain += part;
      packed += compress(GetParam(), part);
    }
    write(packed);
    EXPECT_EQ(take(), plain);
    EXPECT_EQ(archive->rest(size()), Rest::kNone);
    EXPECT_EQ(archive->mark(archive->end()).compressed, size());
  }
}

TEST_P(ArchiveTest, AnyOffsetIsReadAgainWithoutStartingOver) {
  for (const std::uint64_t seed : test::seeds(2)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance chance(seed);
    const std::string plain = chance.text(chance.between(20 * kMiB, 30 * kMiB));
    std::string packed;
    if (GetParam() == ArchiveFormat::kGzip) {
      packed = gzip(plain, 1);
    } else {
      for (std::size_t at = 0; at < plain.size(); at += 2 * kMiB) packed += zstd(plain.substr(at, 2 * kMiB), {1});
    }
    write(packed);
    ASSERT_EQ(take(), plain);
    EXPECT_LE(archive->memory_bytes(), 12 * kMiB);
    for (int i = 0; i < 60; ++i) {
      const std::size_t offset = chance.between(0, plain.size() - 1);
      const std::size_t bytes = chance.between(1, 300'000);
      const std::uint64_t before = archive->decompressed_bytes();
      const std::string expected = plain.substr(offset, bytes);
      ASSERT_EQ(fetch(offset, bytes), expected) << offset;
      EXPECT_LE(archive->decompressed_bytes() - before, plain.size() / 8 + kMiB + bytes) << offset;
    }
  }
}

TEST_P(ArchiveTest, AFetchDoesNotThrowReadingOnBack) {
  test::Chance chance(1);
  const std::string plain = chance.text(12 * kMiB);
  write(compress(GetParam(), plain));
  std::string live;
  std::uint64_t behind = 0;
  while (archive->rest(size()) == Rest::kMore) {
    const FileOffset before = archive->end();
    ASSERT_TRUE(archive->go_on(file.get()));
    live += fetch(before.raw, archive->end() - before);
    const std::size_t piece = std::min<std::uint64_t>(300'000, archive->end().raw - behind);
    ASSERT_EQ(fetch(behind, piece), plain.substr(behind, piece));
    behind += piece;
  }
  EXPECT_EQ(live, plain);
  EXPECT_LE(archive->decompressed_bytes(), 2 * plain.size() + 2 * kMiB) << "once for each of the two places";
}

TEST_P(ArchiveTest, ReadersOfManyPlacesAllGetThere) {
  test::Chance chance(1);
  const std::string plain = chance.text(8 * kMiB);
  write(compress(GetParam(), plain));
  ASSERT_EQ(take(), plain);
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < 9; ++i) places.push_back(i * 800'000 + 100'000);
  std::size_t arrived = 0;
  for (int turn = 0; turn < 1000 && !places.empty(); ++turn) {
    std::erase_if(places, [&](std::size_t offset) {
      std::string piece(1000, '\0');
      const auto n = archive->read(file.get(), {offset}, bytes_of(piece));
      if (!n) return false;
      EXPECT_EQ(piece, plain.substr(offset, 1000));
      ++arrived;
      return true;
    });
  }
  EXPECT_EQ(arrived, 9U);
}

TEST_P(ArchiveTest, GoesOnWithAFileThatGrowsByteByByte) {
  test::Chance chance(1);
  const std::string plain = chance.text(3000);
  const std::string packed = compress(GetParam(), plain.substr(0, 2000)) + compress(GetParam(), plain.substr(2000));
  write(packed.substr(0, kMagicBytes));
  std::string got = take();
  for (std::size_t i = kMagicBytes; i < packed.size(); ++i) {
    test::append(path, packed.substr(i, 1));
    got += take();
    ASSERT_FALSE(error) << error->context;
    const auto rest = archive->rest(size());
    ASSERT_TRUE(rest == Rest::kIncomplete || rest == Rest::kNone);
    for (int again = 0; again < 20; ++again) ASSERT_TRUE(archive->go_on(file.get())) << "nothing new is no error";
  }
  EXPECT_EQ(got, plain);
  EXPECT_EQ(archive->rest(size()), Rest::kNone);
}

TEST_P(ArchiveTest, EveryTruncationGivesWhatIsThereAndIsIncomplete) {
  test::Chance chance(1);
  const std::string plain = chance.text(1500);
  const std::string first = compress(GetParam(), plain.substr(0, 700));
  const std::string packed = first + compress(GetParam(), plain.substr(700));
  for (std::size_t cut = kMagicBytes; cut < packed.size(); ++cut) {
    write(packed.substr(0, cut));
    const std::string got = take();
    ASSERT_FALSE(error);
    ASSERT_EQ(got, plain.substr(0, got.size())) << cut;
    EXPECT_EQ(archive->rest(size()), cut == first.size() ? Rest::kNone : Rest::kIncomplete) << cut;
    if (cut >= first.size()) {
      EXPECT_GE(got.size(), 700U) << cut;
    }
  }
}

TEST_P(ArchiveTest, EveryFlippedByteGivesOnlyWhatWasBeforeOrIsFoundOut) {
  test::Chance chance(1);
  const std::string plain = chance.text(1500);
  const std::string packed = compress(GetParam(), plain);
  std::size_t found = 0;
  for (std::size_t at = kMagicBytes; at < packed.size(); ++at) {
    std::string changed = packed;
    changed[at] = static_cast<char>(changed[at] ^ (1 << chance.between(0, 7)));
    write(changed);
    const std::string got = take();
    ASSERT_FALSE(error);
    const auto rest = archive->rest(size());
    ASSERT_TRUE(rest == Rest::kDamaged || rest == Rest::kIncomplete || got == plain) << at;
    EXPECT_EQ(archive->damage().has_value(), rest == Rest::kDamaged);
    if (rest != Rest::kNone) ++found;
  }
  EXPECT_GT(found, packed.size() - 20) << "some bytes of a header mean nothing";
}

TEST_P(ArchiveTest, DamageIsFoundAtTheSameByteHoweverItIsReachedAndReadIsWhatWasBefore) {
  test::Chance chance(3);
  const std::string plain = chance.text(3 * kMiB);
  std::string packed = compress(GetParam(), plain);
  for (std::size_t i = 0; i < 8; ++i) packed[packed.size() / 2 + i] = '\x55';
  write(packed);
  const std::string got = take();
  ASSERT_EQ(archive->rest(size()), Rest::kDamaged);
  EXPECT_EQ(archive->damage()->code, ErrorCode::kCorrupt);
  const FileOffset end = archive->end();
  EXPECT_GT(end.raw, kMiB / 2);
  const std::string before = fetch(0, 10 * kMiB);
  EXPECT_EQ(before, got);
  // After a restart in the middle.
  open({end.raw / 2});
  take();
  EXPECT_EQ(archive->end(), end);
  EXPECT_EQ(archive->rest(size()), Rest::kDamaged);
}

TEST_P(ArchiveTest, ARestartGoesOnWhereItWasFromTheLastBoundary) {
  for (const std::uint64_t seed : test::seeds(8)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance chance(seed);
    std::string plain;
    std::string packed;
    for (std::size_t i = chance.between(1, 4); i > 0; --i) {
      const std::string part = chance.text(chance.between(1, kMiB));
      plain += part;
      packed += compress(GetParam(), part);
    }
    write(packed);
    std::string got;
    while (archive->rest(size()) == Rest::kMore) {
      const FileOffset before = archive->end();
      ASSERT_TRUE(archive->go_on(file.get()));
      if (archive->end() == before) continue;
      // Killed with some of it sent.
      const FileOffset sent = before + chance.between(1, archive->end() - before);
      got += fetch(before.raw, sent - before);
      const ArchiveMark mark = archive->mark(sent);
      ASSERT_LE(mark.offset, sent);
      open(sent, mark);
      const std::string tail(as_text(archive->tail()));
      EXPECT_EQ(tail, tail.empty() ? "" : plain.substr(sent.raw - tail.size(), tail.size()));
    }
    EXPECT_EQ(got, plain);
    EXPECT_EQ(archive->rest(size()), Rest::kNone);
    // What is complete costs nothing at the next start, and another member is read from there.
    const ArchiveMark mark = archive->mark(archive->end());
    open({plain.size()}, mark);
    EXPECT_EQ(archive->rest(size()), Rest::kNone);
    test::append(path, compress(GetParam(), "more"));
    EXPECT_EQ(archive->rest(size()), Rest::kMore);
    EXPECT_EQ(take(), "more");
    EXPECT_EQ(archive->decompressed_bytes(), 4U);
  }
}

TEST_P(ArchiveTest, ReleasedItGoesOnAndIsReadAgainAllTheSame) {
  test::Chance chance(1);
  const std::string plain = chance.text(5 * kMiB);
  write(compress(GetParam(), plain));
  std::string got;
  while (archive->rest(size()) == Rest::kMore) {
    const FileOffset before = archive->end();
    ASSERT_TRUE(archive->go_on(file.get()));
    if (archive->end() == before) continue;
    archive->release();
    got += fetch(before.raw, archive->end() - before);
  }
  EXPECT_EQ(got, plain);
}

TEST_P(ArchiveTest, TheBudgetHoldsForAllTogether) {
  test::Chance chance(1);
  const std::string plain = chance.text(3 * kMiB);
  write(compress(GetParam(), plain));
  ArchiveBudget small(9 * kMiB);
  std::vector<std::unique_ptr<Archive>> all;
  for (int i = 0; i < 20; ++i) all.push_back(std::make_unique<Archive>(GetParam(), small, FileOffset{}, ArchiveMark{}));
  for (auto& one : all) {
    while (one->rest(size()) == Rest::kMore) ASSERT_TRUE(one->go_on(file.get()));
    EXPECT_EQ(one->end().raw, plain.size());
    EXPECT_LE(small.bytes(), 9 * kMiB);
  }
  std::size_t sum = 0;
  for (auto& one : all) sum += one->memory_bytes();
  EXPECT_EQ(sum, small.bytes());
  all.clear();
  EXPECT_EQ(small.bytes(), 0U);
}

TEST_P(ArchiveTest, TheBudgetHoldsForAllThatAreReadAgainTogether) {
  const std::string plain = test::Chance(1).text(3 * kMiB);
  write(compress(GetParam(), plain));
  const auto most_of = [&](std::size_t count) {
    ArchiveBudget small(1);  // full with the first of them
    std::vector<std::unique_ptr<Archive>> all;
    while (all.size() < count) {
      all.push_back(std::make_unique<Archive>(GetParam(), small, FileOffset{plain.size()}, ArchiveMark{}));
    }
    std::size_t most = 0;
    while (!all.empty()) {
      std::erase_if(all, [&](const auto& one) {
        std::string piece(1000, '\0');
        const auto n = one->read(file.get(), {plain.size() - 5'000}, bytes_of(piece));
        EXPECT_TRUE(n || n.error().code == ErrorCode::kWouldBlock);
        most = std::max(most, small.bytes());
        return n || n.error().code != ErrorCode::kWouldBlock;
      });
    }
    return most;
  };
  EXPECT_LE(most_of(10), most_of(1));
}

TEST_P(ArchiveTest, AnotherFileInItsPlaceIsNoticed) {
  test::Chance chance(1);
  write(compress(GetParam(), chance.text(100'000)));
  take();
  test::write_at(path, 0, compress(GetParam(), chance.text(100'000)));
  std::string buffer(10, '\0');
  const auto n = archive->read(file.get(), {50'000}, bytes_of(buffer));
  ASSERT_FALSE(n);
  EXPECT_EQ(n.error().code, ErrorCode::kReplaced);
  EXPECT_FALSE(archive->verify(file.get()));
}

TEST_P(ArchiveTest, MembersWithoutContentAreNothing) {
  std::string packed;
  for (int i = 0; i < 3000; ++i) packed += compress(GetParam(), "");
  write(packed + compress(GetParam(), "end"));
  EXPECT_EQ(take(), "end");
  EXPECT_EQ(archive->rest(size()), Rest::kNone);
  write(compress(GetParam(), ""));
  EXPECT_EQ(take(), "");
  EXPECT_EQ(archive->rest(size()), Rest::kNone);
}

TEST_P(ArchiveTest, TheHeadIsKnownBeforeAnythingIsRead) {
  test::Chance chance(1);
  const std::string plain = chance.text(10'000);
  write(compress(GetParam(), plain));
  const auto head = archive->head(file.get());
  ASSERT_TRUE(head);
  EXPECT_EQ(as_text(*head), plain.substr(0, Archive::kHeadBytes));
  EXPECT_EQ(archive->end().raw, 0U);
}

TEST_P(ArchiveTest, ABombIsReadInSmallPiecesWithLittleMemory) {
  const std::string zeros(40 * kMiB, '\0');
  write(compress(GetParam(), zeros));
  EXPECT_EQ(take(), zeros);
  EXPECT_LE(archive->memory_bytes(), 8 * kMiB);
}

class GzipTest : public ArchiveTest {};
INSTANTIATE_TEST_SUITE_P(Formats, GzipTest, testing::Values(ArchiveFormat::kGzip));

TEST_P(GzipTest, ZerosBehindItArePaddingAndAnythingElseIsDamage) {
  write(gzip("text") + std::string(200'000, '\0'));
  EXPECT_EQ(take(), "text");
  EXPECT_EQ(archive->rest(size()), Rest::kNone);
  write(gzip("text") + "garbage");
  EXPECT_EQ(take(), "text");
  EXPECT_EQ(archive->rest(size()), Rest::kDamaged);
  write(gzip("text") + std::string(200'000, '\0') + gzip("more"));
  EXPECT_EQ(take(), "text");
  EXPECT_EQ(archive->rest(size()), Rest::kDamaged);
}

TEST_P(GzipTest, AWrongChecksumOrLengthIsDamageBehindTheLastByte) {
  for (const std::size_t from_end : {1U, 4U, 5U, 8U}) {
    std::string packed = gzip("the text");
    packed[packed.size() - from_end] = static_cast<char>(packed[packed.size() - from_end] ^ 1);
    write(packed);
    EXPECT_EQ(take(), "the text");
    EXPECT_EQ(archive->rest(size()), Rest::kDamaged);
    EXPECT_EQ(archive->damage()->code, ErrorCode::kCorrupt);
  }
}

TEST_P(GzipTest, AllFieldsOfTheHeaderAreTaken) {
  std::string packed = gzip("the text");
  std::string header = packed.substr(0, 10);
  header[3] = 0x04 | 0x08 | 0x10 | 0x02;  // FEXTRA, FNAME, FCOMMENT, FHCRC
  header += std::string(
                "\x03\x00"
                "abc",
                5) +
            std::string("name\0", 5) + std::string("comment\0", 8);
  const auto crc = crc32(0, reinterpret_cast<const Bytef*>(header.data()), static_cast<uInt>(header.size()));
  header += static_cast<char>(crc & 0xff);
  header += static_cast<char>((crc >> 8) & 0xff);
  write(header + packed.substr(10));
  EXPECT_EQ(take(), "the text");
  EXPECT_EQ(archive->rest(size()), Rest::kNone);
}

class ZstdTest : public ArchiveTest {};
INSTANTIATE_TEST_SUITE_P(Formats, ZstdTest, testing::Values(ArchiveFormat::kZstd));

TEST_P(ZstdTest, AWrongChecksumIsDamageBehindTheLastByteWhateverTheHeaderSays) {
  for (const bool size_in_header : {true, false}) {
    for (const std::size_t length : {1U, 3U, 8U, 500U, 200'000U}) {
      const std::string plain = test::Chance(1).text(length);
      std::string packed = zstd(plain, {.size_in_header = size_in_header});
      packed.back() = static_cast<char>(packed.back() ^ 1);
      write(packed);
      EXPECT_EQ(take(), plain) << length;
      EXPECT_EQ(archive->rest(size()), Rest::kDamaged);
    }
  }
}

TEST_P(ZstdTest, SkippableFramesAreSkipped) {
  const std::string skipped = std::string("\x5a\x2a\x4d\x18\x05\x00\x00\x00", 8) + "12345";
  const std::string empty("\x50\x2a\x4d\x18\x00\x00\x00\x00", 8);
  const std::string long_one = std::string("\x5f\x2a\x4d\x18\x00\x00\x20\x00", 8) + std::string(2 * kMiB, '\xff');
  for (const std::string& before : {std::string(), skipped, empty, long_one, skipped + empty}) {
    write(before + zstd("one ") + skipped + empty + long_one + zstd("two") + skipped);
    EXPECT_EQ(take(), "one two");
    EXPECT_EQ(archive->rest(size()), Rest::kNone);
  }
  write(skipped + empty);
  EXPECT_EQ(take(), "");
  EXPECT_EQ(archive->rest(size()), Rest::kNone);
}

TEST_P(ZstdTest, ASkippableFrameThatIsCutIsIncomplete) {
  const std::string whole = std::string("\x5a\x2a\x4d\x18\x05\x00\x00\x00", 8) + "12345";
  for (std::size_t size = kMagicBytes; size < whole.size(); ++size) {
    write(whole.substr(0, size));
    EXPECT_EQ(take(), "");
    EXPECT_EQ(archive->rest(size), Rest::kIncomplete) << size;
  }
  write(whole.substr(0, 6));
  EXPECT_EQ(take(), "");
  test::append(path, whole.substr(6) + zstd("text"));
  EXPECT_EQ(take(), "text");
}

TEST_P(ZstdTest, AWindowThatIsTooLargeIsRefusedWithTheReason) {
  const std::string plain(1000, 'x');
  write(zstd("before ") + zstd(plain, {.size_in_header = false, .window_log = 28}));
  EXPECT_EQ(take(), "before ");
  ASSERT_EQ(archive->rest(size()), Rest::kDamaged);
  EXPECT_EQ(archive->damage()->code, ErrorCode::kUnsupported);
  EXPECT_THAT(archive->damage()->context, testing::HasSubstr("128 MiB"));
}

TEST_P(ZstdTest, ADictionaryIsRefusedWithTheReason) {
  // A frame header that names dictionary 7: single segment, one byte of dictionary id, one of content size.
  write(std::string("\x28\xb5\x2f\xfd\x21\x07\x01\x09\x00\x00x", 11));
  EXPECT_EQ(take(), "");
  ASSERT_EQ(archive->rest(size()), Rest::kDamaged);
  EXPECT_EQ(archive->damage()->code, ErrorCode::kUnsupported);
  EXPECT_THAT(archive->damage()->context, testing::HasSubstr("dictionary"));
}

}  // namespace
}  // namespace fantail
