#include "pipeline/command_keeper.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "common/base/log.h"
#include "common/base/types.h"

namespace fantail::pipeline {
namespace {

constexpr pid_t kOrderlyEnd = 0;

constexpr std::string_view kKeeperName = "fantail-keeper";

/// Ends every process with this mark in its environment, but for other keepers, which have work to do; returns how many
/// there were.
int kill_marked(const std::string& mark) {
  int found = 0;
  std::error_code ec;
  for (const auto& process : std::filesystem::directory_iterator("/proc", ec)) {
    const std::string name = process.path().filename().string();
    const auto pid = static_cast<pid_t>(std::strtol(name.c_str(), nullptr, 10));
    if (pid <= 1 || pid == ::getpid()) continue;
    std::string command;
    std::getline(std::ifstream(process.path() / "comm"), command);
    if (command == kKeeperName) continue;
    std::ifstream in(process.path() / "environ", std::ios::binary);
    for (std::string one; std::getline(in, one, '\0');) {
      if (!one.starts_with(CommandKeeper::kMarkName) || one.find(mark) == std::string::npos) continue;
      ::kill(pid, SIGKILL);
      ++found;
      break;
    }
  }
  return found;
}

/// The process beside us: reads until nobody can write any more.
[[noreturn]] void keep(int words, const std::string& mark) {
  ::prctl(PR_SET_NAME, kKeeperName.data());
  ::setsid();  // signals of a terminal are for the one that it keeps
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) ::signal(number, SIG_IGN);
  const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(nothing, fd);
  std::set<pid_t> groups;
  bool orderly = false;
  for (;;) {
    pid_t word = 0;
    const ssize_t n = ::read(words, &word, sizeof word);  // written whole: shorter than PIPE_BUF
    if (n < 0 && errno == EINTR) continue;
    if (n != static_cast<ssize_t>(sizeof word)) break;
    if (word == kOrderlyEnd) {
      orderly = true;
    } else if (word > 0) {
      groups.insert(word);
    } else {
      groups.erase(-word);
    }
  }
  for (const pid_t group : groups) ::kill(-group, SIGKILL);
  // One that was being made when we looked shows its mark a moment later only.
  for (int quiet = 0; !orderly && quiet < 3;) {
    quiet = kill_marked(mark) == 0 ? quiet + 1 : 0;
    ::poll(nullptr, 0, 20);
  }
  ::_exit(0);
}

}  // namespace

Result<CommandKeeper> CommandKeeper::start() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "a pipe to the keeper of commands");
  UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  std::string mark = to_string(random_id<Id128<struct MarkTag>>());
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "starting the keeper of commands");
  if (pid == 0) {
    // Twice, so that it is nobody's child: nothing here has to wait for it.
    if (::fork() != 0) ::_exit(0);
    write_end = {};
    keep(read_end.get(), mark);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  // Keepers of programs that run us look for theirs.
  if (const char* outer = std::getenv(kMarkName); outer != nullptr) mark = std::string(outer) + "," + mark;
  return CommandKeeper(std::move(write_end), std::move(mark));
}

CommandKeeper::~CommandKeeper() {
  if (words_) tell(kOrderlyEnd);
}

void CommandKeeper::tell(pid_t word) const {
  while (::write(words_.get(), &word, sizeof word) < 0) {
    if (errno == EINTR) continue;
    log::error("the keeper of commands is gone: commands would outlive this program",
               {{"error", error_of_errno(errno, "write")}});
    return;
  }
}

}  // namespace fantail::pipeline
