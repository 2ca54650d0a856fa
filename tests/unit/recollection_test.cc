#include "producer/recollection.h"

#include <gmock/gmock.h>

namespace fantail {
namespace {

constexpr PeerId kOne{1};
constexpr PeerId kTwo{2};
constexpr PeerId kViewer{3};
constexpr FileKey kFile{8, 100};

class RecollectionTest : public testing::Test {
 protected:
  static wire::StreamInfo stream(std::uint64_t n, std::uint64_t committed = 10) {
    wire::StreamInfo info;
    info.stream = {1, n};
    info.sequence = n;
    info.topic = "log";
    info.path = "/log/" + std::to_string(n);
    info.file = {kFile.device, kFile.inode + n, 4, 77};
    info.committed = info.head = {committed};
    return info;
  }
  void up(PeerId peer, bool durable = true) { told.consumer_up(peer, durable, now); }
  /// Asks as a producer does, of everybody who is due.
  std::vector<std::uint64_t> ask() {
    std::vector<std::uint64_t> out;
    while (const auto question = told.next_question(now)) {
      out.push_back(question->peer.raw);
      after = question->after;
      told.asked(question->peer, now);
    }
    return out;
  }
  void answer(PeerId peer, std::vector<wire::StreamInfo> streams, bool more = false) {
    told.told(peer, {std::move(streams), true, more}, now);
  }
  bool enough_after(Duration pause) {
    now += pause;
    return told.enough(now);
  }

  MonoTime now = MonoTime{} + 1h;
  std::uint64_t after = 0;
  Recollection told{std::set<FileKey>{}};
};

using testing::ElementsAre;
using testing::IsEmpty;

// ---- whom to ask, and for how long to wait

TEST_F(RecollectionTest, WhileNobodyIsThereItWaits) {
  EXPECT_THAT(ask(), IsEmpty());
  EXPECT_FALSE(enough_after(24h));
}

TEST_F(RecollectionTest, DurableConsumersAreAskedOnceAndAgainWhenTheyDoNotAnswer) {
  up(kOne);
  up(kViewer, false);
  EXPECT_THAT(ask(), ElementsAre(1));
  EXPECT_EQ(after, 0U);
  now += 1s;
  EXPECT_THAT(ask(), IsEmpty());
  now += 1s;
  EXPECT_THAT(ask(), ElementsAre(1));
  answer(kOne, {});
  now += 1min;
  EXPECT_THAT(ask(), IsEmpty());
}

TEST_F(RecollectionTest, APageThatIsNotTheLastIsFollowedByAQuestionForTheNext) {
  up(kOne);
  ask();
  answer(kOne, {stream(3), stream(7)}, true);
  EXPECT_THAT(ask(), ElementsAre(1)) << "at once";
  EXPECT_EQ(after, 7U);
  answer(kOne, {stream(3), stream(7)}, true);
  EXPECT_THAT(ask(), IsEmpty()) << "the same page again is the answer to a question that was repeated";
  answer(kOne, {stream(9)});
  EXPECT_TRUE(enough_after(2s));
  EXPECT_EQ(told.streams().size(), 3U);
}

TEST_F(RecollectionTest, OneAnswerIsEnoughWhenNobodyElseComes) {
  up(kOne);
  ask();
  answer(kOne, {stream(1)});
  EXPECT_FALSE(enough_after(1900ms)) << "others may come";
  EXPECT_TRUE(enough_after(100ms));
}

TEST_F(RecollectionTest, EverybodyWhoIsThereMustHaveAnswered) {
  up(kOne);
  up(kTwo);
  ask();
  answer(kOne, {stream(1)});
  EXPECT_FALSE(enough_after(5s));
  answer(kTwo, {});
  EXPECT_TRUE(told.enough(now));
}

TEST_F(RecollectionTest, OneWhoComesLaterIsWaitedForToo) {
  up(kOne);
  ask();
  answer(kOne, {stream(1)});
  now += 1s;
  up(kTwo);
  EXPECT_THAT(ask(), ElementsAre(2));
  EXPECT_FALSE(enough_after(3s));
  answer(kTwo, {});
  EXPECT_TRUE(told.enough(now));
}

TEST_F(RecollectionTest, WhoGoesIsNotWaitedForAndWhatItToldStays) {
  up(kOne);
  up(kTwo);
  ask();
  answer(kOne, {stream(1)});
  told.consumer_down(kTwo);
  EXPECT_TRUE(enough_after(2s));
  told.consumer_down(kOne);
  EXPECT_FALSE(enough_after(1h)) << "nobody is there";
  EXPECT_EQ(told.streams().size(), 1U);
}

TEST_F(RecollectionTest, WithoutAnyAnswerItEndsAfterTenSeconds) {
  up(kViewer, false);
  EXPECT_FALSE(enough_after(5s));
  up(kOne);
  ask();
  EXPECT_FALSE(enough_after(4900ms));
  EXPECT_TRUE(enough_after(100ms)) << "since the first of them came";
}

TEST_F(RecollectionTest, ALongAnswerIsWaitedForWhileItGoesOnButNotForEver) {
  up(kOne);
  ask();
  std::uint64_t n = 0;
  for (; n < 59; ++n) {
    answer(kOne, {stream(n + 1)}, true);
    ask();
    ASSERT_FALSE(enough_after(1s)) << n;
  }
  answer(kOne, {stream(n + 1)}, true);
  EXPECT_TRUE(enough_after(1s));
}

TEST_F(RecollectionTest, WhatNobodyAskedForIsNotTaken) {
  up(kOne);
  up(kViewer, false);
  answer(kOne, {stream(1)});
  ask();
  answer(kViewer, {stream(2)});
  answer(PeerId{99}, {stream(3)});
  told.told(kOne, {{stream(4)}, false, false}, now);
  EXPECT_THAT(told.streams(), IsEmpty());
  EXPECT_EQ(told.answers(), 0U);
}

// ---- what is made of the answers

TEST_F(RecollectionTest, OfSeveralAnswersTheFurthestBehindAndTheFurthestAheadCount) {
  up(kOne);
  up(kTwo);
  ask();
  wire::StreamInfo ahead = stream(1, 5000);
  ahead.file = {kFile.device, kFile.inode + 1, 4096, 88};
  ahead.base = {7};
  wire::StreamInfo behind = stream(1, 300);
  behind.base = {5};
  answer(kOne, {ahead});
  answer(kTwo, {behind});
  const ToldStream& s = told.streams().at(ahead.stream);
  EXPECT_EQ(s.lowest, FileOffset{300});
  EXPECT_EQ(s.highest, FileOffset{5000});
  EXPECT_EQ(s.info.base, FileOffset{5});
  EXPECT_FALSE(s.sealed);
  EXPECT_FALSE(s.disputed);
  EXPECT_EQ(s.heads, (std::map<std::uint32_t, std::uint64_t>{{4, 77}, {4096, 88}}));
}

TEST_F(RecollectionTest, ContradictionsAboutTheFileAreNoticed) {
  up(kOne);
  up(kTwo);
  ask();
  wire::StreamInfo other_file = stream(1);
  ++other_file.file.inode;
  wire::StreamInfo other_head = stream(2);
  other_head.file.head_digest = 78;
  answer(kOne, {stream(1), stream(2), stream(3)});
  answer(kTwo, {other_file, other_head, stream(3)});
  EXPECT_TRUE(told.streams().at({1, 1}).disputed);
  EXPECT_TRUE(told.streams().at({1, 2}).disputed);
  EXPECT_FALSE(told.streams().at({1, 3}).disputed);
}

TEST_F(RecollectionTest, WhatCannotBeIsCountedAndIgnored) {
  up(kOne);
  ask();
  wire::StreamInfo no_file = stream(1);
  no_file.file = {};
  wire::StreamInfo no_sequence = stream(2);
  no_sequence.sequence = 0;
  wire::StreamInfo huge = stream(3);
  huge.head = huge.committed = {UINT64_MAX};
  wire::StreamInfo last_of_all = stream(4);
  last_of_all.sequence = UINT64_MAX;
  answer(kOne, {no_file, no_sequence, huge, last_of_all});
  EXPECT_THAT(told.streams(), IsEmpty());
  EXPECT_EQ(told.unusable(), 4U);
  EXPECT_EQ(told.last_sequence(), 0U);
}

TEST_F(RecollectionTest, WhatIsCompleteAndHasNoFileIsNotKeptButItsSequenceIs) {
  Recollection with_file{std::set<FileKey>{{kFile.device, kFile.inode + 2}}};
  told = with_file;
  up(kOne);
  ask();
  std::vector<wire::StreamInfo> sealed = {stream(1), stream(2), stream(30)};
  for (auto& info : sealed) info.sealed = true;
  sealed.push_back(stream(4, 10));
  sealed.back().sealed = true;
  sealed.back().head = {11};
  answer(kOne, sealed);
  EXPECT_EQ(told.streams().size(), 2U) << "one has a file, and of one there is more";
  EXPECT_TRUE(told.streams().contains({1, 2}));
  EXPECT_TRUE(told.streams().contains({1, 4}));
  EXPECT_EQ(told.last_sequence(), 30U);
}

}  // namespace
}  // namespace fantail
