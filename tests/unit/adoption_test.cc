#include "producer/adoption.h"

#include <gmock/gmock.h>

#include <cstring>

#include "common/base/digest.h"
#include "producer/file_content.h"
#include "tests/support/scratch_directory.h"
#include "tests/support/seeded.h"

namespace fantail {
namespace {

using State = KnownStream::State;

class Text final : public Content {
 public:
  explicit Text(std::string text) : text_(std::move(text)) {}
  std::uint64_t size() const override { return text_.size(); }
  Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> buffer) override {
    const auto n = offset < text_.size() ? std::min<std::size_t>(buffer.size(), text_.size() - offset) : 0;
    std::memcpy(buffer.data(), text_.data() + offset, n);
    return n;
  }

 private:
  std::string text_;
};

/// What is known of a stream of `text`, of which `cursor` bytes were read.
Fingerprint fingerprint_of(const std::string& text, std::size_t cursor) {
  const auto part = [&](std::size_t from, std::size_t to) {
    return digest(as_bytes(std::string_view(text).substr(from, to - from)));
  };
  Fingerprint out;
  out.cursor = {cursor};
  const std::size_t head = std::min(text.size(), Fingerprint::kHeadBytes);
  out.head_length = static_cast<std::uint32_t>(head);
  out.head_digest = part(0, head);
  if (cursor > 0) out.tail_digest = part(cursor - std::min(cursor, Fingerprint::kTailBytes), cursor);
  return out;
}

Verdict judge(const std::string& file, State state, const std::string& stream, std::size_t cursor, bool kin) {
  Text content(file);
  Text original(stream);
  KnownStream known;
  known.state = state;
  known.fingerprint = fingerprint_of(stream, cursor);
  known.kin = kin;
  if (state == State::kReadable) known.original = &original;
  Newcomer newcomer(content);
  const auto likeness = newcomer.likeness(known.fingerprint);
  if (likeness == Newcomer::Likeness::kNo) return Verdict::kStranger;
  if (likeness == Newcomer::Likeness::kIfKin && !kin) return Verdict::kStranger;
  return newcomer.compare(known);
}

class NewcomerTest : public testing::Test {
 protected:
  test::Chance chance{1};
  const std::string large = chance.text(20'000);
  const std::string small = chance.text(300);
};

TEST_F(NewcomerTest, ACopyOfWhatIsThereIsOneAsFarAsItGoes) {
  for (const std::size_t size : {4096, 5000, 19'999, 20'000}) {
    EXPECT_EQ(judge(large.substr(0, size), State::kReadable, large, 20'000, false), Verdict::kCopy) << size;
  }
}

TEST_F(NewcomerTest, WhatOnlyBeginsLikeAnotherIsAStreamOfItsOwn) {
  EXPECT_EQ(judge(large + "x", State::kReadable, large, 20'000, true), Verdict::kStranger);
  EXPECT_EQ(judge(large.substr(0, 10'000) + "x", State::kReadable, large, 20'000, true), Verdict::kStranger);
  EXPECT_EQ(judge(large.substr(0, 10'000) + chance.text(20'000), State::kGone, large, 20'000, true),
            Verdict::kStranger);
}

TEST_F(NewcomerTest, AFileSmallerThanTheHeadWaitsOnlyIfItsNameIsRelated) {
  EXPECT_EQ(judge(small, State::kReadable, small, 300, true), Verdict::kWait);
  EXPECT_EQ(judge(small, State::kReadable, small, 300, false), Verdict::kStranger);
  EXPECT_EQ(judge(large.substr(0, 100), State::kReadable, large, 20'000, true), Verdict::kWait) << "being copied";
  EXPECT_EQ(judge(large.substr(0, 100), State::kReadable, large, 20'000, false), Verdict::kStranger);
  EXPECT_EQ(judge("a,b,c\n1,2\n", State::kReadable, "a,b,c\n3,4\n", 6, true), Verdict::kStranger);
}

TEST_F(NewcomerTest, AStreamWhoseFileIsGoneGoesOnInACopyThatHasAtLeastWhatWasRead) {
  for (const std::size_t cursor : {0, 1, 4096, 10'000, 20'000}) {
    EXPECT_EQ(judge(large, State::kGone, large, cursor, false), Verdict::kBacking) << cursor;
  }
  EXPECT_EQ(judge(large.substr(0, 9'999), State::kGone, large, 10'000, true), Verdict::kStranger);
  EXPECT_EQ(judge(large, State::kAway, large, 10'000, false), Verdict::kWait);
}

TEST_F(NewcomerTest, ASmallStreamGoesOnOnlyUnderARelatedName) {
  EXPECT_EQ(judge(small + "more", State::kGone, small, 300, true), Verdict::kBacking);
  EXPECT_EQ(judge(small + "more", State::kGone, small, 300, false), Verdict::kStranger);
  EXPECT_EQ(judge("anything", State::kGone, "", 0, true), Verdict::kStranger) << "nothing is known of it";
}

TEST_F(NewcomerTest, OfAStreamThatIsOverOnlyAFullCopyIsKnown) {
  EXPECT_EQ(judge(large, State::kOver, large, 20'000, false), Verdict::kCopy);
  EXPECT_EQ(judge(large + "more", State::kOver, large, 20'000, true), Verdict::kStranger);
  EXPECT_EQ(judge(small, State::kOver, small, 300, true), Verdict::kStranger) << "may be another with the same lines";
}

TEST(KinTest, NamesThatRotatingMakesOfOneAreRelated) {
  for (const char* name :
       {"/x/app.log.1", "/x/app.log-20261121.gz", "/y/app-20261121.log", "/x/app.log~", "/x/app.log"}) {
    EXPECT_TRUE(are_kin(name, "/x/app.log")) << name;
    EXPECT_TRUE(are_kin("/x/app.log", name)) << name;
  }
  for (const char* name : {"/x/apple.log", "/x/other.log", "/x/ap", "/x/.log"}) {
    EXPECT_FALSE(are_kin(name, "/x/app.log")) << name;
  }
}

TEST(CopyRecordTest, WhatWasAppendedAfterTheCopyWasComparedMakesItAnotherFile) {
  const test::ScratchDirectory directory;
  const std::string path = directory / "copy";
  const std::string compared(8192, 'h');
  test::append(path, compared);
  const FileKey key = key_of(path).value();
  const auto as_compared = describe_copy(path, key, {1, 1}, compared.size());
  ASSERT_TRUE(as_compared);
  EXPECT_TRUE(is_copy_still(*as_compared, path));
  test::append(path, "its own");
  const auto late = describe_copy(path, key, {1, 1}, compared.size());
  ASSERT_TRUE(late);
  EXPECT_FALSE(is_copy_still(*late, path));
  EXPECT_TRUE(is_copy_still(*late, path, true));
  EXPECT_FALSE(describe_copy(path, key, {1, 1}, compared.size() + 100)) << "shorter than what was compared";
}

}  // namespace
}  // namespace fantail
