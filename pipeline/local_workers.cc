#include "pipeline/local_workers.h"

#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <sstream>

#include "common/base/log.h"
#include "common/base/program.h"

namespace fantail::pipeline {
namespace {

constexpr Duration kStartAgain = 100ms;

}  // namespace

LocalWorkers::~LocalWorkers() { kill_all(); }

Status LocalWorkers::start() {
  const std::string name = host_name() + ":" + std::to_string(::getpid()) + "." + std::to_string(++started_);
  std::ostringstream drain;
  drain << std::chrono::duration<double>(config_.drain).count();
  std::vector<std::string> words = {
      "fantail-pipeline", "work", "--connect", config_.distributor, "--threads",   std::to_string(config_.threads),
      "--name",           name,   "--drain",   drain.str(),         "--log-level", config_.log_level};
  if (!config_.key_file.empty()) {
    words.emplace_back("--key-file");
    words.push_back(config_.key_file);
  }
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  // A group of their own: Ctrl-C is for us, we tell them.
  ::posix_spawnattr_setpgroup(&attributes, 0);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", 0, 0);
  ::posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);  // stdout is for results
  pid_t pid = -1;
  const std::string mark = std::string(CommandKeeper::kMarkName) + "=" + keeper_.mark();
  std::vector<char*> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!std::string_view(*entry).starts_with(CommandKeeper::kMarkName)) variables.push_back(*entry);
  }
  variables.push_back(const_cast<char*>(mark.c_str()));  // as exec wants it
  variables.push_back(nullptr);
  const int error = ::posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, argv.data(), variables.data());
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) return fail_errno(error, "cannot start a worker");
  keeper_.began(pid);
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!fd) return fail_errno(errno, "cannot watch a worker");
  workers_.push_back({pid, std::move(fd), false});
  return {};
}

void LocalWorkers::end(Process& process) {
  if (process.told_to_end) return;
  process.told_to_end = true;
  ::kill(process.pid, SIGTERM);
}

Status LocalWorkers::resize(std::uint32_t count) {
  wanted_ = count;
  std::size_t staying = 0;
  for (Process& process : workers_) {
    if (process.told_to_end) continue;
    if (staying == wanted_) {
      end(process);
    } else {
      ++staying;
    }
  }
  for (; staying < wanted_; ++staying) {
    if (auto ok = start(); !ok) return ok;
  }
  return {};
}

void LocalWorkers::drain() {
  draining_ = true;
  for (Process& process : workers_) end(process);
}

void LocalWorkers::kill_all() {
  draining_ = true;
  for (const Process& process : workers_) ::kill(process.pid, SIGKILL);
  for (const Process& process : workers_) {
    while (::waitpid(process.pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    keeper_.ended(process.pid);
  }
  workers_.clear();
}

std::size_t LocalWorkers::turn(MonoTime now) {
  std::size_t ended = 0;
  for (std::size_t i = 0; i < workers_.size();) {
    int status = 0;
    const pid_t got = ::waitpid(workers_[i].pid, &status, WNOHANG);
    if (got != workers_[i].pid) {
      ++i;
      continue;
    }
    keeper_.ended(got);
    if (!workers_[i].told_to_end) {
      last_exit_ = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
      if (last_exit_ < 0) {
        log::warn("a worker was killed", {{"pid", got}, {"signal", -last_exit_}});
        start_again_ = now + kStartAgain;
      } else if (wanted_ > 0) {
        --wanted_;  // the run is over, or it cannot work
      }
    }
    workers_.erase(workers_.begin() + static_cast<std::ptrdiff_t>(i));
    ++ended;
  }
  std::size_t staying = 0;
  for (const Process& process : workers_) staying += process.told_to_end ? 0 : 1;
  if (!draining_ && staying < wanted_ && now >= start_again_) {
    start_again_ = now + kStartAgain;
    if (const auto ok = start(); !ok) log::error("cannot start a worker again", {{"error", ok.error()}});
  }
  return ended;
}

void LocalWorkers::add_to(Waiter& waiter) const {
  for (const Process& process : workers_) waiter.add_descriptor(process.fd.get());
}

}  // namespace fantail::pipeline
