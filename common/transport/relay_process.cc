#include "common/transport/relay_process.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace fantail {
namespace {

constexpr Duration kFirstBackOff = 10ms;
constexpr Duration kLongestBackOff = 2s;
constexpr Duration kHealthyAfter = 10s;  // running for so long, the next end is a new story

}  // namespace

Result<std::string> find_relay() {
  if (const char* given = std::getenv("FANTAIL_RELAY"); given != nullptr && *given != '\0') {
    if (::access(given, X_OK) == 0) return std::string(given);
    return fail(ErrorCode::kInvalid,
                "FANTAIL_RELAY '" + std::string(given) + "': is no program that this user may run (" +
                    std::generic_category().message(errno) + "); name fantail-epgm-relay, or unset it");
  }
  std::error_code ec;
  const auto here = std::filesystem::read_symlink("/proc/self/exe", ec).parent_path();
  for (const auto& candidate : {here / "fantail-epgm-relay", here / "../libexec/fantail/fantail-epgm-relay"}) {
    if (::access(candidate.c_str(), X_OK) == 0) return candidate.lexically_normal().string();
  }
  return fail(ErrorCode::kInvalid, "cannot find fantail-epgm-relay, which epgm needs: neither beside this program (" +
                                       here.string() + ") nor in ../libexec/fantail; set FANTAIL_RELAY to its path");
}

RelayProcess::RelayProcess(std::vector<std::string> arguments) : arguments_(std::move(arguments)) {}

RelayProcess::~RelayProcess() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    reap();
  }
}

void RelayProcess::reap() {
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  pidfd_.reset();
}

Status RelayProcess::start(MonoTime now) {
  const auto program = find_relay();
  if (!program) return tl::unexpected(program.error());
  std::vector<char*> argv = {const_cast<char*>(program->c_str())};
  for (auto& argument : arguments_) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return fail_errno(errno, "cannot start " + *program);
  if (child == 0) {
    // Between fork and exec only calls that are safe there (signal-safety(7)).
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    ::signal(SIGINT, SIG_IGN);  // the parent decides when it ends
    ::signal(SIGTERM, SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execv(program->c_str(), argv.data());
    ::_exit(127);
  }
  pid_ = child;
  pidfd_ = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  started_ = now;
  return {};
}

bool RelayProcess::turn(MonoTime now) {
  if (pid_ > 0) {
    int status = 0;
    const pid_t ended = ::waitpid(pid_, &status, WNOHANG);
    if (ended != pid_) return false;
    pid_ = -1;
    pidfd_.reset();
    back_off_ =
        now - started_ > kHealthyAfter ? kFirstBackOff : std::clamp(back_off_ * 2, kFirstBackOff, kLongestBackOff);
    next_start_ = now + back_off_;
    ++restarts_;
    if (const auto n = end_log_.occurred(now); !n) return true;
    const std::string how = WIFSIGNALED(status) ? "signal " + std::to_string(WTERMSIG(status))
                                                : "exit code " + std::to_string(WEXITSTATUS(status));
    log::warn("the epgm relay ended, starting another", {{"reason", how}, {"in_ms", to_milliseconds(back_off_)}});
    return true;
  }
  if (now < next_start_) return false;
  if (auto ok = start(now); !ok) {
    log::error("cannot start the epgm relay", {{"error", ok.error()}});
    next_start_ = now + kLongestBackOff;
    return false;
  }
  log::debug("epgm relay started", {{"pid", pid_}});
  return true;
}

void RelayProcess::replace(MonoTime now, std::string_view why) {
  if (pid_ <= 0) return;
  log::warn("replacing the epgm relay", {{"reason", why}});
  ::kill(pid_, SIGKILL);
  reap();
  ++restarts_;
  next_start_ = now;
}

MonoTime RelayProcess::due(MonoTime now) const { return pid_ > 0 ? now + 1s : std::max(now, next_start_); }

}  // namespace fantail
