#include "pipeline/command_keeper.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <set>

#include "common/base/log.h"

namespace fantail::pipeline {
namespace {

/// The process beside us: reads until nobody can write any more.
[[noreturn]] void keep(int words) {
  ::prctl(PR_SET_NAME, "fantail-keeper");
  ::setsid();  // signals of a terminal are for the one that it keeps
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) ::signal(number, SIG_IGN);
  const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(nothing, fd);
  std::set<pid_t> groups;
  for (;;) {
    pid_t word = 0;
    const ssize_t n = ::read(words, &word, sizeof word);  // written whole: shorter than PIPE_BUF
    if (n < 0 && errno == EINTR) continue;
    if (n != static_cast<ssize_t>(sizeof word)) break;
    if (word > 0) {
      groups.insert(word);
    } else {
      groups.erase(-word);
    }
  }
  for (const pid_t group : groups) ::kill(-group, SIGKILL);
  ::_exit(0);
}

}  // namespace

Result<CommandKeeper> CommandKeeper::start() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "a pipe to the keeper of commands");
  UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "starting the keeper of commands");
  if (pid == 0) {
    // Twice, so that it is nobody's child: nothing here has to wait for it.
    if (::fork() != 0) ::_exit(0);
    write_end = {};
    keep(read_end.get());
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return CommandKeeper(std::move(write_end));
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
