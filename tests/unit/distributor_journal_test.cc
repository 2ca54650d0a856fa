#include "pipeline/distributor_journal.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>

#include <fstream>

#include "tests/support/scratch_directory.h"

namespace fantail::pipeline {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

constexpr const char* kTasks = R"([{"name":"a"},{"name":"b"}])";

class DistributorJournalTest : public testing::Test {
 protected:
  Result<DistributorJournal> open(const std::string& tasks = kTasks, bool anew = false) {
    return DistributorJournal::open(*state, "run-1", tasks, anew);
  }
  test::ScratchDirectory directory;
  Result<StateDirectory> state = StateDirectory::open(directory.path());
  std::filesystem::path path = directory.path() / "distributor.jsonl";
};

TEST_F(DistributorJournalTest, WhatWasHandedOutAndWhatFailedIsKnownAgain) {
  {
    auto journal = open();
    ASSERT_TRUE(journal);
    ASSERT_TRUE(journal->handed_out("w", {{{0, 1}, 1}, {{1, 5}, 2}}));
    journal->troubled({0, 1}, {.attempts = 1, .failures = 1});
    ASSERT_TRUE(journal->write());
  }
  const auto journal = open();
  ASSERT_TRUE(journal);
  EXPECT_EQ(journal->run(), "run-1");
  EXPECT_THAT(journal->past().out, ElementsAre(Pair(JobId{1, 5}, "w"))) << "the other one has failed";
  ASSERT_EQ(journal->past().troubled.size(), 1U);
  EXPECT_EQ(journal->past().troubled.at({0, 1}).failures, 1U);
  EXPECT_FALSE(journal->past().completed);
}

TEST_F(DistributorJournalTest, DeadLettersAreListedReadRequeuedAndPurged) {
  const JobId one{0, 1};
  const JobId two{1, 2};
  {
    auto journal = open();
    journal->given_up(one, R"({"id":"a:1"})");
    EXPECT_EQ(journal->dead_letter(one).value(), R"({"id":"a:1"})") << "before it is written";
    ASSERT_TRUE(journal->write());
    journal->given_up(two, R"({"id":"b:2"})");
    ASSERT_TRUE(journal->write());
    journal->completed();
    ASSERT_TRUE(journal->write());
  }
  {
    auto journal = DistributorJournal::open(*state);
    EXPECT_TRUE(journal->past().completed);
    EXPECT_THAT(journal->dead(), ElementsAre(one, two));
    EXPECT_EQ(journal->dead_letter(two).value(), R"({"id":"b:2"})");
    EXPECT_EQ(journal->parse("b:2"), two);
    EXPECT_FALSE(journal->parse("c:2"));
    journal->purged(one);
    journal->requeued(two);
    ASSERT_TRUE(journal->write());
  }
  const auto journal = open();
  EXPECT_THAT(journal->dead(), IsEmpty());
  EXPECT_FALSE(journal->past().completed) << "there is something to do again";
}

TEST_F(DistributorJournalTest, AnotherRunIsRefusedUnlessItIsBegunAnew) {
  ASSERT_TRUE(open());
  const auto other = open(R"([{"name":"c"}])");
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, ErrorCode::kBusy);
  EXPECT_THAT(other.error().context, HasSubstr("--no-resume"));
  EXPECT_TRUE(open(R"([{"name":"c"}])", true));
}

TEST_F(DistributorJournalTest, AnEndThatWasCutOffIsRemovedAndDamageIsNamed) {
  ASSERT_TRUE(open()->handed_out("w", {{{0, 1}, 1}}));
  const auto good = std::filesystem::file_size(path);
  std::ofstream(path, std::ios::app) << R"({"out":[[0,2)";
  EXPECT_EQ(open()->past().out.size(), 1U);
  EXPECT_EQ(std::filesystem::file_size(path), good);
  std::ofstream(path, std::ios::app) << "garbage\n{}\n";
  const auto damaged = open();
  ASSERT_FALSE(damaged);
  EXPECT_THAT(damaged.error().context, HasSubstr("byte " + std::to_string(good)));
}

TEST_F(DistributorJournalTest, WithoutRoomNothingIsHandedOutAndNothingForgotten) {
  auto journal = open();
  ASSERT_TRUE(journal);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit none{std::filesystem::file_size(path), before.rlim_max};
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &none), 0);
  EXPECT_FALSE(journal->handed_out("w", {{{0, 1}, 1}}));
  journal->given_up({0, 2}, R"({"id":"a:2"})");
  EXPECT_FALSE(journal->write());
  EXPECT_TRUE(journal->unwritten());
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, handler);
  EXPECT_TRUE(journal->write());
  const auto read_again = DistributorJournal::open(*state);
  EXPECT_THAT(read_again->past().out, IsEmpty());
  EXPECT_THAT(read_again->dead(), ElementsAre(JobId{0, 2}));
}

}  // namespace
}  // namespace fantail::pipeline
