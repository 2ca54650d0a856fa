#include "pipeline/shell_command.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "common/base/text.h"

namespace fantail::pipeline {
namespace {

constexpr std::size_t kKeptErrors = 4096;
constexpr std::size_t kReadBytes = 64 * 1024;

struct Pipe {
  UniqueFd ours;
  UniqueFd theirs;
};

Result<Pipe> make_pipe(bool we_read) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "a pipe to a command");
  Pipe out{UniqueFd(ends[we_read ? 0 : 1]), UniqueFd(ends[we_read ? 1 : 0])};
  ::fcntl(out.ours.get(), F_SETFL, O_NONBLOCK);
  return out;
}

/// Our environment with some more in it, as exec wants it.
class Environment {
 public:
  explicit Environment(const std::map<std::string, std::string>& more) {
    for (char** entry = environ; *entry != nullptr; ++entry) {
      const std::string_view text(*entry);
      if (!more.contains(std::string(text.substr(0, text.find('='))))) texts_.emplace_back(text);
    }
    for (const auto& [name, value] : more) texts_.push_back(name + "=" + value);
    for (auto& text : texts_) pointers_.push_back(text.data());
    pointers_.push_back(nullptr);
  }
  char* const* get() const { return pointers_.data(); }

 private:
  std::vector<std::string> texts_;
  std::vector<char*> pointers_;
};

/// A command that runs, with what is between it and us.
class Running {
 public:
  Running(const ShellCommand& command, const CommandKeeper& keeper, const std::function<bool(std::string)>& on_line)
      : command_(command), keeper_(keeper), on_line_(on_line) {}
  ~Running() {
    if (pid_ <= 0) return;
    if (!reaped_) reap(0);
    keeper_.ended(pid_);
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  Status start();
  /// One wait and what came of it. True: it has ended.
  Result<bool> step();
  ShellOutcome outcome() { return std::move(outcome_); }

 private:
  bool reap(int flags);
  void stop(ShellOutcome::Ending why);
  void write_input();
  void read_output();
  void read_errors();

  const ShellCommand& command_;
  const CommandKeeper& keeper_;
  const std::function<bool(std::string)>& on_line_;
  pid_t pid_ = -1;
  UniqueFd process_;
  Pipe in_;
  Pipe out_;
  Pipe err_;
  std::size_t written_ = 0;
  std::string line_;
  std::optional<MonoTime> kill_at_;
  bool stopping_ = false;
  bool reaped_ = false;
  ShellOutcome outcome_;
};

Status Running::start() {
  for (auto [pipe, we_read] : {std::pair{&in_, false}, {&out_, true}, {&err_, true}}) {
    auto made = make_pipe(we_read);
    if (!made) return tl::unexpected(made.error());
    *pipe = std::move(*made);
  }
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_adddup2(&actions, in_.theirs.get(), STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, out_.theirs.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, err_.theirs.get(), STDERR_FILENO);
  sigset_t none;
  sigset_t defaults;
  sigemptyset(&none);
  sigemptyset(&defaults);
  for (const int number : {SIGINT, SIGTERM, SIGPIPE, SIGIO, SIGCHLD}) sigaddset(&defaults, number);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &defaults);
  ::posix_spawnattr_setpgroup(&attributes, 0);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::string text = command_.text;
  char shell[] = "sh";
  char flag[] = "-c";
  char* argv[] = {shell, flag, text.data(), nullptr};
  auto variables = command_.environment;
  variables[CommandKeeper::kMarkName] = keeper_.mark();
  const Environment environment(variables);
  const int error = ::posix_spawn(&pid_, "/bin/sh", &actions, &attributes, argv, environment.get());
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    pid_ = -1;
    if (error == E2BIG) {
      return fail(ErrorCode::kInvalid,
                  "cannot start it: with its line the command has " + std::to_string(command_.text.size()) +
                      " bytes, more than the system takes; the line comes on stdin, too: leave out {}");
    }
    return fail_errno(error, "cannot start '" + std::string(utf8_prefix(command_.text, 200)) + "'");
  }
  keeper_.began(pid_);
  in_.theirs = {};
  out_.theirs = {};
  err_.theirs = {};
  process_ = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  if (!process_) return fail_errno(errno, "watching a command");
  return {};
}

bool Running::reap(int flags) {
  // What it left behind goes too; as long as it is not reaped nobody else has its number.
  ::kill(-pid_, SIGKILL);
  int status = 0;
  pid_t got = 0;
  do {
    got = ::waitpid(pid_, &status, flags);
  } while (got < 0 && errno == EINTR);
  if (got != pid_) return false;
  reaped_ = true;
  outcome_.exit_code = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  return true;
}

void Running::stop(ShellOutcome::Ending why) {
  if (stopping_) return;
  stopping_ = true;
  outcome_.ending = why;
  ::kill(-pid_, SIGTERM);
  kill_at_ = mono_now() + command_.grace;
}

void Running::write_input() {
  while (written_ < command_.input.size()) {
    const ssize_t n = ::write(in_.ours.get(), command_.input.data() + written_, command_.input.size() - written_);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) break;  // it does not want to read: its business
    written_ += static_cast<std::size_t>(n);
  }
  in_.ours = {};
}

void Running::read_output() {
  std::array<char, kReadBytes> buffer;
  for (;;) {
    const ssize_t n = ::read(out_.ours.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) break;
    if (stopping_) continue;
    std::string_view bytes(buffer.data(), static_cast<std::size_t>(n));
    for (auto end = bytes.find('\n'); end != std::string_view::npos; end = bytes.find('\n')) {
      line_ += bytes.substr(0, end);
      bytes.remove_prefix(end + 1);
      if (line_.size() > kMaxLineBytes) return stop(ShellOutcome::Ending::kLineTooLong);
      if (!on_line_(std::exchange(line_, {}))) return stop(ShellOutcome::Ending::kStopped);
    }
    line_ += bytes;
    if (line_.size() > kMaxLineBytes) return stop(ShellOutcome::Ending::kLineTooLong);
  }
  out_.ours = {};
  if (!line_.empty() && !stopping_) on_line_(std::exchange(line_, {}));
}

void Running::read_errors() {
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t n = ::read(err_.ours.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) break;
    outcome_.errors.append(buffer.data(), static_cast<std::size_t>(n));
    if (outcome_.errors.size() > 2 * kKeptErrors) outcome_.errors.erase(0, outcome_.errors.size() - kKeptErrors);
  }
  err_.ours = {};
}

Result<bool> Running::step() {
  std::array<pollfd, 5> items{{{process_.get(), POLLIN, 0},
                               {in_.ours.get(), POLLOUT, 0},
                               {out_.ours.get(), POLLIN, 0},
                               {err_.ours.get(), POLLIN, 0},
                               {stopping_ ? -1 : command_.stop_fd, POLLIN, 0}}};
  std::optional<MonoTime> until = stopping_ ? kill_at_ : command_.deadline;
  int timeout = -1;
  if (until) timeout = static_cast<int>(std::clamp<std::int64_t>(to_milliseconds(*until - mono_now()) + 1, 0, 60'000));
  if (::poll(items.data(), items.size(), timeout) < 0 && errno != EINTR) return fail_errno(errno, "poll");
  if (items[4].revents != 0) stop(ShellOutcome::Ending::kStopped);
  const MonoTime now = mono_now();
  if (!stopping_ && command_.deadline && now >= *command_.deadline) stop(ShellOutcome::Ending::kTimedOut);
  if (stopping_ && kill_at_ && now >= *kill_at_) {
    ::kill(-pid_, SIGKILL);
    kill_at_.reset();
  }
  if (in_.ours && items[1].revents != 0) write_input();
  // What it printed before it ended is there now; what others still print who have its pipes is not waited for.
  const bool ended = items[0].revents != 0 && reap(WNOHANG);
  if (out_.ours && (ended || items[2].revents != 0)) read_output();
  if (err_.ours && (ended || items[3].revents != 0)) read_errors();
  if (ended && !line_.empty() && !stopping_) on_line_(std::exchange(line_, {}));
  return ended;
}

}  // namespace

Result<ShellOutcome> run_shell(const ShellCommand& command, const CommandKeeper& keeper,
                               const std::function<bool(std::string line)>& on_line) {
  Running running(command, keeper, on_line);
  if (auto ok = running.start(); !ok) return tl::unexpected(ok.error());
  for (;;) {
    const auto ended = running.step();
    if (!ended) return tl::unexpected(ended.error());
    if (*ended) break;
  }
  ShellOutcome outcome = running.outcome();
  if (outcome.errors.size() > kKeptErrors) outcome.errors.erase(0, outcome.errors.size() - kKeptErrors);
  return outcome;
}

}  // namespace fantail::pipeline
