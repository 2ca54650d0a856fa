#include "state/process_tree.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <string>

#include "common/base/unique_fd.h"

namespace fantail::state {
namespace {

/// The parent of each process there is.
std::multimap<pid_t, pid_t> children_by_parent() {
  std::multimap<pid_t, pid_t> out;
  const std::unique_ptr<DIR, int (*)(DIR*)> proc(::opendir("/proc"), ::closedir);
  if (!proc) return out;
  while (const dirent* entry = ::readdir(proc.get())) {
    const std::string name = entry->d_name;
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error != std::errc{} || end != name.data() + name.size()) continue;
    std::ifstream in("/proc/" + name + "/stat");
    std::string text;
    std::getline(in, text);
    // "pid (name) state ppid ...": the name may contain anything, also ')'.
    const auto behind_name = text.rfind(')');
    pid_t parent = 0;
    char state = 0;
    if (behind_name == std::string::npos) continue;
    if (std::sscanf(text.c_str() + behind_name + 1, " %c %d", &state, &parent) == 2 && state != 'Z') {
      out.emplace(parent, pid);
    }
  }
  return out;
}

void reap_all() {
  for (;;) {
    const pid_t ended = ::waitpid(-1, nullptr, WNOHANG);
    if (ended > 0 || (ended < 0 && errno == EINTR)) continue;
    return;
  }
}

}  // namespace

std::vector<pid_t> descendants(pid_t root) {
  const auto children = children_by_parent();
  std::vector<pid_t> out = {root};
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto [begin, end] = children.equal_range(out[i]);
    for (auto child = begin; child != end; ++child) out.push_back(child->second);
  }
  out.erase(out.begin());
  return out;
}

void adopt_orphans() { ::prctl(PR_SET_CHILD_SUBREAPER, 1UL); }

void kill_tree(pid_t root) {
  auto all = descendants(root);
  all.insert(all.begin(), root);
  for (const pid_t pid : all) ::kill(pid, SIGSTOP);  // none of them starts another meanwhile
  for (const pid_t pid : descendants(root)) ::kill(pid, SIGKILL);
  ::kill(root, SIGKILL);
}

void end_descendants(Duration grace) {
  const pid_t self = ::getpid();
  const MonoTime until = mono_now() + grace;
  bool asked = false;
  for (;;) {
    reap_all();
    const auto left = descendants(self);
    if (left.empty()) return;
    const bool kill_now = mono_now() >= until;
    if (!asked || kill_now) {
      for (const pid_t pid : left) ::kill(pid, kill_now ? SIGKILL : SIGTERM);
      for (const pid_t pid : left) {
        if (!kill_now) ::kill(pid, SIGCONT);  // who is stopped cannot end
      }
      asked = true;
    }
    // The first to end is reason enough to look again; new ones may have come, too.
    const UniqueFd one(static_cast<int>(::syscall(SYS_pidfd_open, left.front(), 0)));
    pollfd ended{one.get(), POLLIN, 0};
    ::poll(&ended, 1, 20);
  }
}

}  // namespace fantail::state
