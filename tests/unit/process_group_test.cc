#include "state/process_group.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <stdexcept>

#include "common/json/json.h"
#include "state/process_tree.h"
#include "tests/support/scratch_directory.h"

namespace fantail::state {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

Task shell(const std::string& script) {
  Task task;
  task.command = {"sh", "-c", script};
  return task;
}

Task function(std::function<Json(const Json&)> what, Json argument = {}) {
  Task task;
  task.function = std::move(what);
  task.argument = std::move(argument);
  return task;
}

/// Waits for a condition that other processes bring about.
template <class Condition>
bool comes_true(const Condition& condition) {
  const MonoTime deadline = mono_now() + 20s;
  while (!condition()) {
    if (mono_now() > deadline) return false;
    ::usleep(2000);
  }
  return true;
}

class ProcessGroupTest : public testing::Test {
 protected:
  Ending run(Task task, RetryPolicy policy = {}) {
    ProcessGroup group;
    EXPECT_TRUE(group.start(std::move(task), std::move(policy)));
    EXPECT_TRUE(group.wait({}));
    return *group.ending(0);
  }
  std::string file(const std::string& name) const { return scratch / name; }
  test::ScratchDirectory scratch;
};

TEST_F(ProcessGroupTest, Z21_AProgramsExitCodeOrSignalIsTold) {
  EXPECT_TRUE(run(shell("exit 0")).ok());
  EXPECT_EQ(run(shell("exit 7")).exit_code, 7);
  EXPECT_EQ(run(shell("kill -9 $$")).exit_code, -9);
  Task missing;
  missing.command = {"/nonexistent/program"};
  EXPECT_EQ(run(missing).exit_code, 127);
}

TEST_F(ProcessGroupTest, Z21_AFunctionsResultComesBackHoweverLarge) {
  const Ending small = run(function([](const Json& n) { return Json(n.get<int>() + 1); }, 41));
  EXPECT_TRUE(small.ok());
  EXPECT_EQ(small.result, 42);
  const Ending large = run(function([](const Json&) { return Json(std::string(3'000'000, 'x')); }));
  EXPECT_EQ(large.result.get<std::string>().size(), 3'000'000u) << "more than a pipe holds";
}

TEST_F(ProcessGroupTest, Z24_WhatAFunctionThrowsComesBackWithTypeMessageAndTrace) {
  const Ending ending = run(function([](const Json&) -> Json {
    try {
      throw std::out_of_range("inner");
    } catch (...) {
      std::throw_with_nested(std::runtime_error("outer"));
    }
  }));
  ASSERT_TRUE(ending.exception);
  EXPECT_EQ(ending.exception->message, "outer");
  EXPECT_THAT(ending.exception->type, HasSubstr("std::runtime_error"));
  EXPECT_THAT(ending.exception->trace, HasSubstr("std::out_of_range: inner"));
  EXPECT_EQ(ending.exit_code, 1);
  EXPECT_EQ(run(function([](const Json&) -> Json { throw ProcessExit{5}; })).exit_code, 5);
  EXPECT_EQ(run(function([](const Json&) -> Json { throw 1; })).exception->type, "unknown");
  const Ending killed = run(function([](const Json&) -> Json {
    ::raise(SIGKILL);
    return 1;
  }));
  EXPECT_EQ(killed.exit_code, -9);
  EXPECT_FALSE(killed.ok());
}

TEST_F(ProcessGroupTest, Z20_EachArgumentReachesAProcessOfItsOwn) {
  ProcessGroup group;
  const auto squares = group.start_each(function([](const Json& n) -> Json {
                                          if (n == 3) throw std::domain_error("not three");
                                          return {{"square", n.get<int>() * n.get<int>()}, {"pid", ::getpid()}};
                                        }),
                                        {1, 2, 3, 4});
  ASSERT_TRUE(squares);
  EXPECT_THAT(*squares, testing::ElementsAre(0, 1, 2, 3));
  const auto commands = group.start_each(shell("echo \"$FANTAIL_ARGUMENT\" > " + file("$$")), {"a b", {{"k", 1}}});
  ASSERT_TRUE(commands);
  std::vector<std::string> files;
  for (const std::size_t index : *commands) files.push_back(file(std::to_string(group.pid(index))));
  ASSERT_TRUE(group.wait({}));
  std::set<int> pids;
  for (const int n : {1, 2, 4}) {
    const Ending& ending = *group.ending(squares->at(static_cast<std::size_t>(n - 1)));
    EXPECT_EQ(ending.result["square"], n * n);
    pids.insert(ending.result["pid"].get<int>());
  }
  EXPECT_EQ(pids.size(), 3u);
  EXPECT_EQ(group.ending(2)->exception->message, "not three");
  EXPECT_EQ(test::contents(files[0]), "\"a b\"\n");
  EXPECT_EQ(test::contents(files[1]), "{\"k\":1}\n");
}

TEST_F(ProcessGroupTest, Z23_RetriesAreCountedAndReported) {
  std::vector<unsigned> reported;
  ProcessGroup group(500ms, [&](std::size_t, const Ending& ending, Duration) { reported.push_back(ending.tries); });
  ASSERT_TRUE(group.start(shell("echo x >> " + file("tries") + "; exit 3"), {.retries = 5, .delay = 1ms}));
  EXPECT_TRUE(group.wait({}));
  EXPECT_EQ(group.ending(0)->tries, 6u);
  EXPECT_EQ(group.ending(0)->exit_code, 3);
  EXPECT_EQ(test::contents(file("tries")), "x\nx\nx\nx\nx\nx\n");
  EXPECT_THAT(reported, testing::ElementsAre(1, 2, 3, 4, 5));

  const std::string until_third = "echo x >> " + file("n") + "; [ $(wc -l < " + file("n") + ") -ge 3 ]";
  const Ending forever = run(shell(until_third), {.retries = std::nullopt, .delay = 1ms});
  EXPECT_TRUE(forever.ok());
  EXPECT_EQ(forever.tries, 3u);
}

TEST_F(ProcessGroupTest, Z23_OnlyNamedFailuresAreRepeated) {
  RetryPolicy policy{.retries = 3, .delay = 1ms, .exit_codes = {75}, .signals = {SIGTERM}, .exceptions = {}};
  EXPECT_EQ(run(shell("exit 1"), policy).tries, 1u);
  EXPECT_EQ(run(shell("exit 75"), policy).tries, 4u);
  EXPECT_EQ(run(shell("kill -TERM $$"), policy).tries, 4u);
  EXPECT_EQ(run(shell("kill -KILL $$"), policy).tries, 1u);
  policy.exceptions = {"std::runtime_error"};
  EXPECT_EQ(run(function([](const Json&) -> Json { throw std::runtime_error("x"); }), policy).tries, 4u);
  EXPECT_EQ(run(function([](const Json&) -> Json { throw std::logic_error("x"); }), policy).tries, 1u);
}

TEST_F(ProcessGroupTest, Z22_OneDeadlineIsForAll) {
  ProcessGroup group;
  ASSERT_TRUE(group.start(shell("exit 0")));
  ASSERT_TRUE(group.start(shell("sleep 100")));
  EXPECT_FALSE(group.wait(mono_now() + 300ms));
  EXPECT_TRUE(group.alive(1));
  EXPECT_TRUE(group.wait_for(0, {}));
  EXPECT_FALSE(group.wait(mono_now() + 1ms)) << "again, the other is there still";
}

TEST_F(ProcessGroupTest, Z21_StoppingTellsHowItEndedAndIsFinal) {
  ProcessGroup group(500ms);
  ASSERT_TRUE(group.start(shell("sleep 100"), {.retries = std::nullopt, .delay = 1ms}));
  ASSERT_TRUE(
      group.start(shell("trap 'exit 9' TERM; echo ready > " + file("ready") + "; while :; do sleep 0.01; done")));
  ASSERT_TRUE(comes_true([&] { return test::contents(file("ready")) == "ready\n"; }));
  EXPECT_EQ(group.stop(0).exit_code, -SIGTERM);
  EXPECT_EQ(group.stop(1).exit_code, 9) << "it had time to end as it likes";
  EXPECT_EQ(group.stop(1).exit_code, 9);
  EXPECT_FALSE(group.alive(0));
}

/// A script of three levels that writes the process ids of all to a file, and does not end by itself or when asked.
std::string three_levels(const std::string& pids) {
  return "trap '' TERM; echo $$ >> " + pids + "; sh -c 'trap \"\" TERM; echo $$ >> " + pids +
         "; setsid sh -c \"echo \\$\\$ >> " + pids + "; exec sleep 1000\" & wait' & wait";
}
std::vector<pid_t> pids_in(const std::string& path) {
  std::ifstream in(path);
  std::vector<pid_t> out;
  for (pid_t pid = 0; in >> pid;) out.push_back(pid);
  return out;
}
bool is_gone(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  return !std::getline(in, text) || text.find(") Z ") != std::string::npos;
}

TEST_F(ProcessGroupTest, Z19_TheWholeTreeGoesWithTheGroup) {
  {
    ProcessGroup group(50ms);
    ASSERT_TRUE(group.start(shell(three_levels(file("pids")))));
    ASSERT_TRUE(comes_true([&] { return pids_in(file("pids")).size() == 3; }));
  }
  for (const pid_t pid : pids_in(file("pids"))) EXPECT_TRUE(is_gone(pid)) << pid;
  EXPECT_THAT(descendants(::getpid()), IsEmpty());
}

TEST_F(ProcessGroupTest, Z25_TheWholeTreeGoesWithAParentThatIsKilled) {
  const pid_t parent = ::fork();
  if (parent == 0) {
    ProcessGroup group(50ms);
    (void)group.start(shell(three_levels(file("pids"))));
    (void)group.start(function([&](const Json&) -> Json {
      ProcessGroup nested(50ms);  // groups within groups
      (void)nested.start(shell(three_levels(file("pids"))));
      nested.wait({});
      return {};
    }));
    group.wait({});
    ::_exit(0);
  }
  ASSERT_TRUE(comes_true([&] { return pids_in(file("pids")).size() == 6; }));
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  for (const pid_t pid : pids_in(file("pids"))) EXPECT_TRUE(comes_true([&] { return is_gone(pid); })) << pid;
}

TEST_F(ProcessGroupTest, AKeeperThatIsKilledLeavesNothingBehind) {
  ProcessGroup group(50ms);
  ASSERT_TRUE(group.start(shell(three_levels(file("pids")))));
  ASSERT_TRUE(comes_true([&] { return pids_in(file("pids")).size() == 3; }));
  std::ifstream in("/proc/" + std::to_string(group.pid(0)) + "/stat");
  std::string text;
  std::getline(in, text);
  pid_t keeper = 0;
  ASSERT_EQ(std::sscanf(text.c_str() + text.rfind(')') + 1, " %*c %d", &keeper), 1);
  ::kill(keeper, SIGKILL);
  EXPECT_TRUE(group.wait({}));
  EXPECT_EQ(group.ending(0)->exit_code, -SIGKILL);
  for (const pid_t pid : pids_in(file("pids"))) EXPECT_TRUE(comes_true([&] { return is_gone(pid); })) << pid;
}

TEST_F(ProcessGroupTest, Z20_EachHasItsOwnEnvironmentAndArgument) {
  ProcessGroup group;
  for (int i = 0; i < 3; ++i) {
    Task task = function([](const Json& n) { return Json(std::string(::getenv("WHO")) + n.dump()); }, i);
    task.environment = {{"WHO", "w" + std::to_string(i)}};
    ASSERT_TRUE(group.start(std::move(task)));
  }
  EXPECT_TRUE(group.wait({}));
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(group.ending(i)->result, "w" + std::to_string(i) + std::to_string(i));
  }
  EXPECT_EQ(::getenv("WHO"), nullptr);
  EXPECT_FALSE(group.start(Task{})) << "neither command nor function";
}

}  // namespace
}  // namespace fantail::state
