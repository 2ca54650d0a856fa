#include "state/process_group.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <system_error>

#include "common/base/thrown.h"
#include "common/json/json.h"
#include "state/process_tree.h"

namespace fantail::state {
namespace {

constexpr std::size_t kMostResult = 64 * 1024 * 1024;

void write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // nobody is there to read it
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
}

void unblock_signals() {
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int number : {SIGINT, SIGTERM, SIGPIPE, SIGIO, SIGCHLD}) ::signal(number, SIG_DFL);
}

/// In the process itself: does what it is to do. Never returns.
[[noreturn]] void become(const Task& task, int result) {
  unblock_signals();
  for (const auto& [name, value] : task.environment) ::setenv(name.c_str(), value.c_str(), 1);
  if (!task.command.empty()) {
    std::vector<char*> argv;
    for (const auto& word : task.command) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    ::execvp(argv[0], argv.data());
    const std::string why = task.command[0] + ": " + std::generic_category().message(errno) + "\n";
    write_all(STDERR_FILENO, why);
    ::_exit(errno == ENOENT ? 127 : 126);
  }
  Json told = Json::object();
  int code = 0;
  try {
    told["result"] = task.function(task.argument);
  } catch (const ProcessExit& e) {
    code = e.code;
  } catch (...) {
    const Thrown thrown = current_thrown();
    told["exception"] = {{"type", thrown.type}, {"message", thrown.message}, {"trace", thrown.trace}};
    code = 1;
  }
  write_all(result, told.dump(-1, ' ', false, Json::error_handler_t::replace));
  ::_exit(code);
}

/// Between the group and one process: waits for the process or for the end of the group, and leaves nothing of it
/// behind. Never returns.
[[noreturn]] void keep(const Task& task, int words, int result, Duration grace, pid_t group) {
  adopt_orphans();
  sigset_t waited;
  sigemptyset(&waited);
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) sigaddset(&waited, number);
  ::sigprocmask(SIG_BLOCK, &waited, nullptr);
  ::signal(SIGCHLD, SIG_DFL);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  const UniqueFd signals(::signalfd(-1, &waited, SFD_CLOEXEC));
  int code = 1;
  pid_t child = -1;
  if (::getppid() == group) {
    child = ::fork();
    if (child == 0) become(task, result);
    if (child > 0) write_all(words, std::to_string(child) + "\n");
  }
  bool told_to_end = child < 0;
  while (!told_to_end) {
    int status = 0;
    const pid_t ended = ::waitpid(-1, &status, WNOHANG);
    if (ended == child) {
      code = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
      break;
    }
    if (ended > 0) continue;
    signalfd_siginfo info{};
    const ssize_t n = ::read(signals.get(), &info, sizeof info);
    if (n == sizeof info && info.ssi_signo != SIGCHLD) told_to_end = true;
  }
  if (told_to_end && child > 0) {
    // It may use the grace to end as it likes; how it did is told.
    ::kill(child, SIGTERM);
    ::kill(child, SIGCONT);
    const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
    pollfd ended{pidfd.get(), POLLIN, 0};
    ::poll(&ended, 1, static_cast<int>(to_milliseconds(grace)));
    int status = 0;
    pid_t waited_for = ::waitpid(child, &status, WNOHANG);
    if (waited_for == 0) {
      ::kill(child, SIGKILL);
      while ((waited_for = ::waitpid(child, &status, 0)) < 0 && errno == EINTR) {
      }
    }
    code = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  }
  end_descendants(told_to_end ? Duration::zero() : grace);
  write_all(words, std::to_string(code) + "\n");
  ::_exit(0);
}

}  // namespace

ProcessGroup::ProcessGroup(Duration grace, Report report) : grace_(grace), report_(std::move(report)) {
  adopt_orphans();  // of a keeper that somebody kills
}

ProcessGroup::~ProcessGroup() { stop_all(); }

Result<std::size_t> ProcessGroup::start(Task task, RetryPolicy policy) {
  if (task.command.empty() && !task.function) return fail(ErrorCode::kInvalid, "a task needs a command or a function");
  Member member;
  member.task = std::move(task);
  member.policy = std::move(policy);
  if (auto ok = launch(member); !ok) return tl::unexpected(ok.error());
  members_.push_back(std::move(member));
  return members_.size() - 1;
}

Result<std::vector<std::size_t>> ProcessGroup::start_each(const Task& task, const std::vector<Json>& arguments,
                                                          const RetryPolicy& policy) {
  std::vector<std::size_t> started;
  for (const Json& argument : arguments) {
    Task one = task;
    one.argument = argument;
    one.environment["FANTAIL_ARGUMENT"] = to_text(argument);
    const auto index = start(std::move(one), policy);
    if (!index) {
      for (const std::size_t earlier : started) stop(earlier);
      return tl::unexpected(index.error());
    }
    started.push_back(*index);
  }
  return started;
}

namespace {

/// A number in a line of its own, or nothing.
std::optional<int> read_number(int fd) {
  std::string line;
  for (char c = 0; c != '\n';) {
    const ssize_t n = ::read(fd, &c, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return std::nullopt;
    line += c;
  }
  return std::atoi(line.c_str());
}

}  // namespace

Status ProcessGroup::launch(Member& member) {
  std::array<int, 2> words{};
  std::array<int, 2> result{};
  if (::pipe2(words.data(), O_CLOEXEC) != 0) return fail_errno(errno, "cannot start a process");
  UniqueFd words_in(words[0]);
  const UniqueFd words_out(words[1]);
  if (::pipe2(result.data(), O_CLOEXEC) != 0) return fail_errno(errno, "cannot start a process");
  UniqueFd result_in(result[0]);
  const UniqueFd result_out(result[1]);
  const pid_t self = ::getpid();
  const pid_t keeper = ::fork();
  if (keeper < 0) return fail_errno(errno, "cannot start a process");
  if (keeper == 0) keep(member.task, words_out.get(), result_out.get(), grace_, self);
  member.keeper = keeper;
  member.keeper_fd = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, keeper, 0)));
  member.keeper_words = std::move(words_in);
  member.result_fd = std::move(result_in);
  member.result.clear();
  member.next_try.reset();
  ++member.tries;
  member.pid = read_number(member.keeper_words.get()).value_or(-1);
  return {};
}

void ProcessGroup::read_some(Member& member) {
  std::array<char, 64 * 1024> buffer;
  const ssize_t n = ::read(member.result_fd.get(), buffer.data(), buffer.size());
  if (n < 0 && errno == EINTR) return;
  if (n <= 0) return member.result_fd.reset();
  if (member.result.size() < kMostResult) member.result.append(buffer.data(), static_cast<std::size_t>(n));
}

/// When a keeper has ended: how it went, and whether there is another try.
void ProcessGroup::collect(std::size_t index, MonoTime now) {
  Member& member = members_[index];
  const auto code = read_number(member.keeper_words.get());
  if (!code && member.pid > 0) kill_tree(member.pid);  // somebody killed the keeper
  while (member.result_fd) read_some(member);
  while (::waitpid(member.keeper, nullptr, 0) < 0 && errno == EINTR) {
  }
  member.keeper = -1;
  member.keeper_fd.reset();
  member.keeper_words.reset();
  member.pid = -1;

  Ending ending;
  ending.tries = member.tries;
  ending.exit_code = code.value_or(-SIGKILL);
  if (const auto told = parse_json(member.result); told && told->is_object()) {
    ending.result = told->value("result", Json());
    if (const auto thrown = told->find("exception"); thrown != told->end()) {
      ending.exception = {thrown->value("type", ""), thrown->value("message", ""), thrown->value("trace", "")};
    }
  }
  const RetryPolicy& policy = member.policy;
  const bool any_failure = policy.exit_codes.empty() && policy.signals.empty() && policy.exceptions.empty();
  const bool named = policy.exit_codes.contains(ending.exit_code) || policy.signals.contains(-ending.exit_code) ||
                     (ending.exception && policy.exceptions.contains(ending.exception->type));
  const bool more = !policy.retries || member.tries <= *policy.retries;
  if (!member.stopped && !ending.ok() && (any_failure || named) && more) {
    member.next_try = now + policy.delay;
    if (report_) report_(index, ending, policy.delay);
    return;
  }
  member.ending = std::move(ending);
}

void ProcessGroup::step(MonoTime now) {
  for (std::size_t i = 0; i < members_.size(); ++i) {
    Member& member = members_[i];
    if (member.ending) continue;
    if (member.keeper > 0) {
      pollfd ended{member.keeper_fd.get(), POLLIN, 0};
      if (::poll(&ended, 1, 0) > 0) collect(i, now);
    } else if (member.next_try && now >= *member.next_try) {
      if (!launch(member)) member.next_try = now + std::max<Duration>(member.policy.delay, 100ms);
    }
  }
}

bool ProcessGroup::wait_until(const std::function<bool()>& done, std::optional<MonoTime> deadline, int wake) {
  for (;;) {
    const MonoTime now = mono_now();
    step(now);
    if (done()) return true;
    if (deadline && now >= *deadline) return false;
    std::vector<pollfd> awaited = {{wake, POLLIN, 0}};
    MonoTime until = deadline.value_or(now + 1h);
    for (const Member& member : members_) {
      if (member.ending) continue;
      if (member.keeper > 0) awaited.push_back({member.keeper_fd.get(), POLLIN, 0});
      // What a function returns may be more than a pipe holds: then it ends only when that was read.
      if (member.result_fd) awaited.push_back({member.result_fd.get(), POLLIN, 0});
      if (member.next_try) until = std::min(until, *member.next_try);
    }
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(std::max(until - now, Duration::zero())).count();
    ::poll(awaited.data(), awaited.size(), static_cast<int>(std::min<std::int64_t>(ms, 3'600'000)));
    if (wake >= 0 && awaited[0].revents != 0) return false;
    for (Member& member : members_) {
      const bool readable = member.result_fd && std::any_of(awaited.begin() + 1, awaited.end(), [&](const pollfd& p) {
                              return p.fd == member.result_fd.get() && p.revents != 0;
                            });
      if (readable) read_some(member);
    }
  }
}

bool ProcessGroup::wait(std::optional<MonoTime> deadline, int wake) {
  return wait_until(
      [&] {
        return std::all_of(members_.begin(), members_.end(), [](const Member& m) { return m.ending.has_value(); });
      },
      deadline, wake);
}

bool ProcessGroup::wait_for(std::size_t index, std::optional<MonoTime> deadline, int wake) {
  return wait_until([&] { return members_.at(index).ending.has_value(); }, deadline, wake);
}

Ending ProcessGroup::stop(std::size_t index) {
  Member& member = members_.at(index);
  member.stopped = true;
  if (member.keeper > 0) {
    ::kill(member.keeper, SIGTERM);
    wait_for(index, std::nullopt);
  } else if (!member.ending) {
    member.ending.emplace();
    member.ending->exit_code = -SIGTERM;  // between two tries
    member.ending->tries = member.tries;
  }
  return *member.ending;
}

void ProcessGroup::stop_all() {
  for (Member& member : members_) {
    member.stopped = true;
    if (member.keeper > 0) ::kill(member.keeper, SIGTERM);
  }
  for (std::size_t i = 0; i < members_.size(); ++i) stop(i);
}

}  // namespace fantail::state
