#include "pipeline/job_protocol.h"

#include <gmock/gmock.h>

#include "common/json/json.h"
#include "pipeline/generated_jobs.h"
#include "pipeline/shell_jobs.h"
#include "pipeline/task.h"
#include "tests/support/seeded.h"

namespace fantail::pipeline {
namespace {

using testing::ElementsAre;

TEST(JobProtocolTest, JobsOfAnyBytesComeBack) {
  JobsMessage message;
  std::string bytes;
  for (int c = 0; c < 256; ++c) bytes += static_cast<char>(c);
  message.jobs = {{{0, 1}, 1, "plain"}, {{3, 1ULL << 60}, 7, bytes}, {{1, 2}, 2, ""}, {{1, 3}, 1, "ü\"\\\n"}};
  const auto back = JobsMessage::from_json(message.to_json());
  ASSERT_TRUE(back) << back.error().context;
  ASSERT_EQ(back->jobs.size(), message.jobs.size());
  for (std::size_t i = 0; i < message.jobs.size(); ++i) {
    EXPECT_EQ(back->jobs[i].job, message.jobs[i].job);
    EXPECT_EQ(back->jobs[i].attempt, message.jobs[i].attempt);
    EXPECT_EQ(back->jobs[i].data, message.jobs[i].data);
  }
}

TEST(JobProtocolTest, ReportsAndGreetingsComeBack) {
  ReportMessage report;
  report.failed = {{{0, 1}, -9, 0.25, "killed \xff"}};
  report.returned = {{2, 3}};
  const auto back = ReportMessage::from_json(report.to_json());
  ASSERT_TRUE(back);
  EXPECT_EQ(back->failed.at(0).exit, -9);
  EXPECT_EQ(back->failed.at(0).error, "killed \xff");
  EXPECT_THAT(back->returned, ElementsAre(JobId{2, 3}));

  WelcomeMessage welcome{"run", "tcp://x:1", R"({"a":[1]})", {{"t", "true", 1500ms}}};
  const auto welcomed = WelcomeMessage::from_json(welcome.to_json());
  ASSERT_TRUE(welcomed);
  EXPECT_EQ(welcomed->metadata, R"({"a":[1]})");
  EXPECT_EQ(welcomed->tasks.at(0).timeout, Duration(1500ms));

  JoinMessage join{"w", 4, {{1, 2}}, "run"};
  EXPECT_THAT(JoinMessage::from_json(join.to_json())->holds, ElementsAre(JobId{1, 2}));
}

TEST(JobProtocolTest, P13_NoMessageWithADamagedByteIsMoreThanRefused) {
  const std::string good[] = {JobsMessage{{{{0, 1}, 1, "x"}, {{0, 2}, 1, "\xff"}}}.to_json(),
                              ReportMessage{{{{0, 1}, 1, 0.5, "e"}}, {{0, 2}}}.to_json(),
                              JoinMessage{"w", 1, {{0, 1}}, "r"}.to_json(),
                              WelcomeMessage{"r", "c", "null", {{"t", "c", 1s}}}.to_json()};
  for (const std::uint64_t seed : test::seeds(20)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance random(seed);
    const auto below = [&](std::size_t most) { return random.between(std::size_t{0}, most - 1); };
    for (int i = 0; i < 1000; ++i) {
      std::string text = good[below(4)];
      for (std::size_t n = 1 + below(3); n > 0; --n) text[below(text.size())] = static_cast<char>(below(256));
      if (random.with(0.3)) text.resize(below(text.size()));
      // Either is fine; what is not is to throw, to crash or to read what is not there.
      EXPECT_NO_THROW((void)JobsMessage::from_json(text));
      EXPECT_NO_THROW((void)ReportMessage::from_json(text));
      EXPECT_NO_THROW((void)JoinMessage::from_json(text));
      EXPECT_NO_THROW((void)WelcomeMessage::from_json(text));
    }
  }
}

TEST(JobProtocolTest, AResultIsOneLineOfJson) {
  const ResultRecord record{"t:1", "t", 2, "w\"", 1.5, 0.25, 0, R"({"x":1})"};
  const auto value = parse_json(record.to_json());
  ASSERT_TRUE(value);
  EXPECT_EQ((*value)["worker"], "w\"");
  EXPECT_EQ((*value)["result"]["x"], 1);
  EXPECT_TRUE(record.to_json().starts_with(R"({"id":"t:1")"));
}

TEST(ShellJobsTest, TheLineIsOneWordOfTheShell) {
  EXPECT_EQ(shell_quoted("abc-1.0/x=y"), "abc-1.0/x=y");
  EXPECT_EQ(shell_quoted(""), "''");
  EXPECT_EQ(shell_quoted("it's $x"), R"('it'\''s $x')");
  EXPECT_EQ(with_line("a {} b {}", "x y"), "a 'x y' b 'x y'");
  EXPECT_EQ(with_line("no place", "x"), "no place");
}

TEST(TaskTest, NamesThatAreNoNamesOfFilesAreRefused) {
  for (const char* good : {"a", "A-1_b.c"}) EXPECT_TRUE(check_task_name(good)) << good;
  for (const char* bad : {"", ".", "..", ".x", "a/b", "a b", "a\n", "\xc3\xbc"})
    EXPECT_FALSE(check_task_name(bad)) << bad;
  EXPECT_FALSE(check_task_name(std::string(65, 'x')));
}

TEST(GeneratedJobsTest, AFunctionMayHaveNoneYet) {
  bool more = false;
  bool over = false;
  auto jobs = GeneratedJobs::make(
      "name",
      [&](std::uint64_t number) {
        return number <= (more ? 3 : 2) ? std::optional("job" + std::to_string(number)) : std::nullopt;
      },
      [&] { return over; });
  ASSERT_TRUE(jobs);
  EXPECT_EQ((*jobs)->look_on().value(), 2U);
  EXPECT_EQ((*jobs)->look_on().value(), 0U);
  EXPECT_FALSE((*jobs)->complete());
  more = true;
  EXPECT_EQ((*jobs)->look_on().value(), 1U);
  over = true;
  EXPECT_EQ((*jobs)->look_on().value(), 0U);
  EXPECT_TRUE((*jobs)->complete());
  EXPECT_EQ((*jobs)->job(3).value(), "job3");
  EXPECT_EQ((*jobs)->job(1).value(), "job1");
  EXPECT_FALSE((*jobs)->job(4));
}

}  // namespace
}  // namespace fantail::pipeline
