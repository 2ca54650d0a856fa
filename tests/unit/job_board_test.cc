#include "pipeline/job_board.h"

#include <gmock/gmock.h>

#include "tests/support/seeded.h"

namespace fantail::pipeline {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Verdict = JobBoard::Verdict;

class JobBoardTest : public testing::Test {
 protected:
  void open(std::vector<TaskSpec> tasks) {
    auto opened = JobBoard::open(std::move(tasks), 7);
    ASSERT_TRUE(opened) << opened.error().context;
    board.emplace(std::move(*opened));
  }
  /// One task with so many jobs.
  void open_jobs(std::uint64_t count, TaskSpec spec = {.name = "t"}) {
    open({std::move(spec)});
    board->add_jobs(0, count);
    board->close(0);
  }
  std::vector<std::string> take(std::uint64_t worker, std::size_t count) {
    std::vector<std::string> out;
    for (const auto& a : board->take(worker, count, now)) {
      out.push_back(board->text_of(a.job) + (a.attempt > 1 ? "#" + std::to_string(a.attempt) : ""));
    }
    return out;
  }
  JobId job(const std::string& text) { return board->parse(text).value(); }
  void done(const std::string& text) { EXPECT_TRUE(board->acknowledged(job(text))); }

  MonoTime now{1000s};
  std::optional<JobBoard> board;
};

TEST_F(JobBoardTest, JobsGoOutInOrderAndEachOnce) {
  open_jobs(5);
  EXPECT_THAT(take(1, 2), ElementsAre("t:1", "t:2"));
  EXPECT_THAT(take(2, 10), ElementsAre("t:3", "t:4", "t:5"));
  EXPECT_THAT(take(2, 10), IsEmpty());
  for (const char* text : {"t:1", "t:2"}) done(text);
  for (const char* text : {"t:3", "t:4"}) done(text);
  EXPECT_FALSE(board->finished());
  done("t:5");
  EXPECT_TRUE(board->finished());
  EXPECT_FALSE(board->acknowledged(job("t:5"))) << "a second result";
}

TEST_F(JobBoardTest, P5_ATaskWaitsForEveryAcknowledgementOfThoseBeforeIt) {
  open({{.name = "a"}, {.name = "b"}, {.name = "c", .after = {"a", "b"}}});
  board->add_jobs(0, 1);
  board->add_jobs(1, 2);
  board->add_jobs(2, 1);
  board->close(1);
  board->close(2);
  EXPECT_THAT(take(1, 9), ElementsAre("a:1", "b:1", "b:2"));
  done("a:1");
  done("b:1");
  EXPECT_THAT(take(1, 9), IsEmpty()) << "b:2 is not acknowledged";
  EXPECT_TRUE(board->acknowledged(job("b:2")));
  EXPECT_THAT(take(1, 9), IsEmpty()) << "a may have more";
  board->close(0);
  EXPECT_THAT(take(1, 9), ElementsAre("c:1"));
}

TEST_F(JobBoardTest, P6_OneByOneNothingOvertakes) {
  open_jobs(3, {.name = "t", .retries = 1, .one_by_one = true, .back_off = 1s});
  EXPECT_THAT(take(1, 9), ElementsAre("t:1"));
  EXPECT_THAT(take(2, 9), IsEmpty());
  EXPECT_EQ(board->failed(1, job("t:1"), now), Verdict::kRetry);
  EXPECT_THAT(take(2, 9), IsEmpty()) << "it will be tried again first";
  now += 1s;
  EXPECT_THAT(take(2, 9), ElementsAre("t:1#2"));
  EXPECT_THAT(take(2, 9), IsEmpty());
  board->acknowledged(job("t:1"));
  EXPECT_THAT(take(2, 9), ElementsAre("t:2"));
}

TEST_F(JobBoardTest, CirclesAndUnknownNamesAreRefusedByName) {
  const auto refusal = [](std::vector<TaskSpec> tasks) {
    const auto opened = JobBoard::open(std::move(tasks), 1);
    return opened ? "" : opened.error().context;
  };
  EXPECT_THAT(refusal({{.name = "a", .after = {"c"}}, {.name = "b", .after = {"a"}}, {.name = "c", .after = {"b"}}}),
              HasSubstr("'a' after 'c' after 'b' after 'a'"));
  EXPECT_THAT(refusal({{.name = "a", .after = {"a"}}}), HasSubstr("'a' after 'a'"));
  EXPECT_THAT(refusal({{.name = "a", .after = {"x"}}}), HasSubstr("'x', which is no task"));
  EXPECT_THAT(refusal({{.name = "a"}, {.name = "a"}}), HasSubstr("'a' is there twice"));
  EXPECT_THAT(refusal({{.name = ""}}), HasSubstr("no name"));
  EXPECT_EQ(refusal({{.name = "a", .after = {"b", "c"}},
                     {.name = "b", .after = {"d"}},
                     {.name = "c", .after = {"d"}},
                     {.name = "d"}}),
            "")
      << "no circle";
}

TEST_F(JobBoardTest, AFailureIsTriedAgainLaterAndLaterThenGivenUp) {
  open_jobs(1, {.name = "t", .retries = 3, .back_off = 1s, .longest_back_off = 3s});
  std::vector<double> pauses;
  for (int attempt = 1; attempt <= 3; ++attempt) {
    EXPECT_THAT(take(1, 1), ElementsAre(attempt == 1 ? "t:1" : "t:1#" + std::to_string(attempt)));
    EXPECT_EQ(board->failed(1, job("t:1"), now), Verdict::kRetry);
    EXPECT_THAT(take(1, 1), IsEmpty());
    pauses.push_back(std::chrono::duration<double>(*board->due() - now).count());
    now = *board->due();
  }
  EXPECT_THAT(pauses, ElementsAre(testing::AllOf(testing::Ge(0.5), testing::Le(1)),
                                  testing::AllOf(testing::Ge(1), testing::Le(2)),
                                  testing::AllOf(testing::Ge(1.5), testing::Le(3))));
  EXPECT_THAT(take(1, 1), ElementsAre("t:1#4"));
  EXPECT_EQ(board->failed(1, job("t:1"), now), Verdict::kDead);
  EXPECT_TRUE(board->finished());
  EXPECT_THAT(board->dead(), ElementsAre(job("t:1")));
  EXPECT_TRUE(board->requeue(job("t:1")));
  EXPECT_FALSE(board->requeue(job("t:1")));
  EXPECT_FALSE(board->finished());
  EXPECT_THAT(take(1, 1), ElementsAre("t:1#5"));
}

TEST_F(JobBoardTest, P17_WhatALostWorkerHadGoesToOthers) {
  open_jobs(3);
  EXPECT_THAT(take(1, 3), ElementsAre("t:1", "t:2", "t:3"));
  done("t:1");
  done("t:2");
  EXPECT_THAT(board->lost(1, now), ElementsAre(std::pair(job("t:3"), Verdict::kRetry))) << "the others are safe";
  EXPECT_EQ(board->failed(1, job("t:3"), now), Verdict::kIgnored);
  now += 1s;
  EXPECT_THAT(take(2, 3), ElementsAre("t:3#2"));
  EXPECT_TRUE(board->acknowledged(job("t:3"))) << "the first one's result, after all";
  EXPECT_EQ(board->failed(2, job("t:3"), now), Verdict::kIgnored);
  EXPECT_TRUE(board->finished());
}

TEST_F(JobBoardTest, APoisonedJobIsFoundOutAndThoseBesideItAreNotBlamed) {
  open_jobs(4, {.name = "t", .max_crashes = 2});
  EXPECT_THAT(take(1, 4), ElementsAre("t:1", "t:2", "t:3", "t:4"));
  EXPECT_EQ(board->lost(1, now).size(), 4U);
  now += 1s;
  // Each of them is alone with a worker now; t:3 takes it with it.
  std::uint64_t worker = 2;
  std::vector<std::string> dead;
  for (int i = 0; i < 20 && !board->finished(); ++i) {
    const auto got = take(worker, 10);
    ASSERT_LE(got.size(), 1U);
    if (got.empty()) {
      now += 1s;
      continue;
    }
    const JobId it = board->parse(got[0].substr(0, got[0].find('#'))).value();
    if (it != job("t:3")) {
      board->acknowledged(it);
      continue;
    }
    EXPECT_THAT(take(worker, 10), IsEmpty()) << "nothing beside it";
    for (const auto& [lost, verdict] : board->lost(worker++, now)) {
      if (verdict == Verdict::kDead) dead.push_back(board->text_of(lost));
    }
  }
  EXPECT_TRUE(board->finished());
  EXPECT_THAT(dead, ElementsAre("t:3"));
  EXPECT_EQ(board->progress().acknowledged, 3U);
}

TEST_F(JobBoardTest, AWorkerThatIsNeverIdleRunsEmptyForASuspect) {
  open_jobs(100);
  take(1, 2);
  board->lost(1, now);
  now += 1s;
  EXPECT_EQ(take(2, 2).size(), 1U) << "idle: gets one";
  EXPECT_EQ(take(3, 2).size(), 1U) << "idle: gets the other";
  EXPECT_THAT(take(3, 2), IsEmpty()) << "and nothing beside it";
  done("t:1");
  EXPECT_EQ(take(2, 4).size(), 4U) << "no suspect is left";
  board->lost(3, now);
  now += 2s;
  EXPECT_THAT(take(2, 4), IsEmpty()) << "it has something: runs empty";
  EXPECT_EQ(take(4, 1), std::vector<std::string>{"t:2#3"}) << "but an idle one takes it first";
  EXPECT_EQ(take(2, 4).size(), 4U);
}

TEST_F(JobBoardTest, ASuspectGoesToAWorkerWhoseJobsAreAcknowledged) {
  open_jobs(3);
  EXPECT_THAT(take(1, 1), ElementsAre("t:1"));
  EXPECT_THAT(take(2, 1), ElementsAre("t:2"));
  board->lost(1, now);
  now += 1s;
  EXPECT_THAT(take(2, 1), IsEmpty()) << "it has one";
  done("t:2");
  EXPECT_THAT(take(2, 9), ElementsAre("t:1#2"));
}

TEST_F(JobBoardTest, AJobThatHangsCountsAsACrash) {
  open_jobs(1, {.name = "t", .max_crashes = 2});
  EXPECT_THAT(take(1, 1), ElementsAre("t:1"));
  EXPECT_EQ(board->hung(2, job("t:1"), now), Verdict::kIgnored) << "it does not have it";
  EXPECT_EQ(board->hung(1, job("t:1"), now), Verdict::kRetry);
  EXPECT_EQ(board->hung(1, job("t:1"), now), Verdict::kIgnored);
  now += 1s;
  EXPECT_THAT(take(2, 1), ElementsAre("t:1#2"));
  EXPECT_EQ(board->hung(2, job("t:1"), now), Verdict::kDead);
}

TEST_F(JobBoardTest, WhatIsGivenBackIsNobodysFault) {
  open_jobs(2);
  EXPECT_THAT(take(1, 2), ElementsAre("t:1", "t:2"));
  board->returned(1, job("t:2"), now);
  EXPECT_THAT(take(2, 9), ElementsAre("t:2#2")) << "at once";
  board->released(1, now);
  EXPECT_THAT(take(2, 9), ElementsAre("t:1#2"));
  EXPECT_EQ(board->past(job("t:1"))->crashes, 0U);
}

TEST_F(JobBoardTest, WhatABoardOfBeforeKnewGoesOn) {
  open_jobs(3, {.name = "t", .retries = 2});
  board->restore(job("t:1"), {.attempts = 3, .failures = 2}, now);
  board->restore(job("t:2"), {.attempts = 5, .failures = 3, .dead = true}, now);
  board->hold(7, job("t:3"));
  EXPECT_THAT(take(1, 9), ElementsAre("t:1#4"));
  EXPECT_EQ(board->failed(1, job("t:1"), now), Verdict::kDead);
  EXPECT_THAT(board->dead(), ElementsAre(job("t:1"), job("t:2")));
  EXPECT_FALSE(board->finished());
  done("t:3");
  EXPECT_TRUE(board->finished());
}

TEST_F(JobBoardTest, AWorkerThatComesBackWithItsJobHasNotDiedOfIt) {
  open_jobs(1, {.name = "t", .max_crashes = 2});
  EXPECT_THAT(take(1, 1), ElementsAre("t:1"));
  for (std::uint64_t worker = 1; worker < 6; ++worker) {
    EXPECT_THAT(board->lost(worker, now), ElementsAre(std::pair(job("t:1"), Verdict::kRetry))) << "only a pause";
    board->hold(worker + 1, job("t:1"));
    now += 100s;
    EXPECT_THAT(take(9, 1), IsEmpty());
  }
}

TEST_F(JobBoardTest, AJobIsGivenUpOnce) {
  open_jobs(2, {.name = "t", .max_crashes = 1});
  EXPECT_THAT(take(1, 1), ElementsAre("t:1"));
  EXPECT_THAT(board->lost(1, now), ElementsAre(std::pair(job("t:1"), Verdict::kDead)));
  board->hold(2, job("t:1"));  // its worker was not dead after all
  EXPECT_EQ(board->failed(2, job("t:1"), now), Verdict::kIgnored);
  EXPECT_EQ(board->progress().dead, 1U);
  EXPECT_FALSE(board->finished()) << "t:2 was not done";
}

TEST_F(JobBoardTest, WhatACollectorLostIsDoneAgain) {
  open_jobs(2);
  EXPECT_THAT(take(1, 2), ElementsAre("t:1", "t:2"));
  done("t:1");
  done("t:2");
  board->forget_acknowledged(0);
  done("t:1");  // it still has that one
  EXPECT_FALSE(board->finished());
  EXPECT_THAT(take(1, 2), ElementsAre("t:2"));
}

TEST_F(JobBoardTest, TasksBehindADeadJobDoNotBeginAndTheRunEnds) {
  open({{.name = "a"}, {.name = "b", .after = {"a"}}, {.name = "c", .after = {"b"}}});
  for (std::uint32_t task : {0U, 1U, 2U}) {
    board->add_jobs(task, 1);
    board->close(task);
  }
  take(1, 1);
  EXPECT_EQ(board->failed(1, job("a:1"), now), Verdict::kDead);
  EXPECT_TRUE(board->finished());
  EXPECT_THAT(board->blocked(), ElementsAre(1U, 2U));
  EXPECT_TRUE(board->acknowledged(job("a:1"))) << "its result arrives after all";
  EXPECT_FALSE(board->finished());
  EXPECT_THAT(take(1, 1), ElementsAre("b:1"));
}

TEST_F(JobBoardTest, WhatWasAcknowledgedBeforeARestartIsNotHandedOut) {
  open_jobs(6);
  for (const char* text : {"t:1", "t:2", "t:4"}) EXPECT_TRUE(board->acknowledged(job(text)));
  EXPECT_THAT(take(1, 9), ElementsAre("t:3", "t:5", "t:6"));
}

TEST_F(JobBoardTest, NamesOfJobsAreReadBack) {
  open({{.name = "a:b"}, {.name = "t"}});
  EXPECT_EQ(board->parse("a:b:7"), (JobId{0, 7}));
  EXPECT_EQ(board->parse("t:1"), (JobId{1, 1}));
  for (const char* text : {"", "t", "t:", "t:0", "t:x", "t:1x", "u:1", ":1", "t:-1"}) {
    EXPECT_EQ(board->parse(text), std::nullopt) << text;
  }
}

TEST(NumberSetTest, HoldsWhatWasPutIn) {
  for (const std::uint64_t seed : test::seeds(100)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance random(seed);
    NumberSet set;
    std::set<std::uint64_t> truth;
    for (int i = 0; i < 300; ++i) {
      const std::uint64_t number = random.between(std::size_t{1}, 100);
      EXPECT_EQ(set.insert(number), truth.insert(number).second);
      const std::uint64_t from = random.between(std::size_t{0}, 101);
      std::uint64_t missing = from;
      while (truth.contains(missing)) ++missing;
      EXPECT_EQ(set.next_missing(from), missing);
      EXPECT_EQ(set.contains(from), truth.contains(from));
    }
    EXPECT_EQ(set.size(), truth.size());
    std::size_t gaps = 0;
    for (const std::uint64_t n : truth) gaps += !truth.contains(n - 1);
    EXPECT_EQ(set.intervals(), gaps);
  }
}

/// Workers that come, fail, die and answer late, at random: in the end every job is acknowledged or dead, none was with
/// two workers at a time, none began before those that it waits for, and no suspect had company.
TEST_F(JobBoardTest, EveryJobEndsOnceWhateverHappens) {
  for (const std::uint64_t seed : test::seeds(300)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance random(seed);
    const auto below = [&](std::size_t n) { return random.between(std::size_t{0}, n - 1); };
    std::vector<TaskSpec> specs{
        {.name = "a", .retries = 2, .max_crashes = 2},
        {.name = "b", .retries = 1, .one_by_one = true},
        {.name = "c", .after = {"a"}, .retries = 1},
        {.name = "d", .after = {"b", "c"}},
    };
    auto opened = JobBoard::open(specs, seed);
    JobBoard& b = *opened;
    std::vector<std::uint64_t> known(4);
    for (std::uint32_t t = 0; t < 4; ++t) {
      known[t] = below(15);
      b.add_jobs(t, known[t]);
      b.close(t);
    }
    std::map<std::uint64_t, std::map<JobId, unsigned>> held;  // worker to jobs, with their attempts
    std::set<JobId> delivered;                                // on their way to be acknowledged
    std::set<JobId> acknowledged;
    std::uint64_t next_worker = 1;
    for (int step = 0; step < 5000 && !b.finished(); ++step) {
      const bool calm = step > 500;  // so that it ends
      if (held.size() < 3 && random.with(0.3)) held[next_worker++];
      if (!delivered.empty() && random.with(0.5)) {
        const JobId it = *std::next(delivered.begin(), static_cast<std::ptrdiff_t>(below(delivered.size())));
        delivered.erase(it);
        EXPECT_EQ(b.acknowledged(it), acknowledged.insert(it).second);
      }
      now += std::chrono::milliseconds(below(400));
      if (held.empty()) continue;
      const auto at = std::next(held.begin(), static_cast<std::ptrdiff_t>(below(held.size())));
      auto& [worker, jobs] = *at;
      const std::size_t what = below(10);
      if (what < 4) {
        for (const auto& [it, attempt] : b.take(worker, 1 + below(4), now)) {
          for (const auto& [other, theirs] : held) ASSERT_FALSE(theirs.contains(it)) << b.text_of(it);
          ASSERT_FALSE(acknowledged.contains(it));
          ASSERT_TRUE(it.task != 2 || b.progress(0).acknowledged == known[0]);
          ASSERT_TRUE(it.task != 3 ||
                      (b.progress(1).acknowledged == known[1] && b.progress(2).acknowledged == known[2]));
          jobs[it] = attempt;
        }
        std::size_t of_b = 0;
        for (const auto& [other, theirs] : held) {
          for (const auto& [it, attempt] : theirs) of_b += it.task == 1 && !acknowledged.contains(it);
        }
        ASSERT_LE(of_b, 1U) << "one by one";
      } else if (what < 8 || calm) {
        if (jobs.empty()) continue;
        const auto it = std::next(jobs.begin(), static_cast<std::ptrdiff_t>(below(jobs.size())));
        delivered.insert(it->first);
        jobs.erase(it);
      } else if (what == 8) {
        if (jobs.empty()) continue;
        const JobId it = jobs.begin()->first;
        jobs.erase(jobs.begin());
        b.failed(worker, it, now);
      } else {
        // It may have delivered one of them before it went, without anybody being told.
        if (!jobs.empty() && random.with(0.5)) delivered.insert(jobs.begin()->first);
        b.lost(worker, now);
        held.erase(at);
      }
    }
    ASSERT_TRUE(b.finished());
    for (const JobId it : delivered) EXPECT_EQ(b.acknowledged(it), acknowledged.insert(it).second);
    for (std::uint32_t t = 0; t < 4; ++t) {
      std::uint64_t count = 0;
      for (const JobId it : acknowledged) count += it.task == t;
      EXPECT_EQ(b.progress(t).acknowledged, count);
      const auto blocked = b.blocked();
      if (std::find(blocked.begin(), blocked.end(), t) == blocked.end() && b.finished()) {
        EXPECT_EQ(count + b.progress(t).dead, known[t]);
      }
    }
  }
}

}  // namespace
}  // namespace fantail::pipeline
