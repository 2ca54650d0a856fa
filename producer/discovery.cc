#include "producer/discovery.h"

#include <dirent.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>

namespace fantail {
namespace {

constexpr std::uint32_t kDirectoryEvents =
    IN_CREATE | IN_DELETE | IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
constexpr int kMaxDepth = 64;

std::string join(const std::string& directory, std::string_view name) {
  return (directory == "/" ? "" : directory) + "/" + std::string(name);
}

}  // namespace

struct Discovery::Walk {
  const std::function<void(const std::string&, const Selection&)>& found;
  std::vector<std::size_t> matched;
  std::set<std::pair<dev_t, ino_t>> seen;  ///< directories, so that links in circles end
};

Result<Discovery> Discovery::open(std::vector<Selection> selections, std::vector<Glob> excludes, bool poll) {
  Discovery discovery(std::move(selections), std::move(excludes));
  if (!poll) {
    discovery.inotify_ = UniqueFd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    if (!discovery.inotify_) {
      log::warn("no inotify, polling instead", {{"error", error_of_errno(errno, "inotify_init1")}});
    }
  }
  return discovery;
}

bool Discovery::excluded(std::string_view path) const {
  return std::any_of(excludes_.begin(), excludes_.end(), [&](const Glob& g) { return g.matches(path); });
}

const Selection* Discovery::selection_of(std::string_view path) const {
  for (const Selection& s : selections_) {
    if (s.glob.matches(path)) return excluded(path) ? nullptr : &s;
  }
  return nullptr;
}

void Discovery::watch_directory(const std::string& directory) {
  if (!inotify_ || watch_of_.contains(directory)) return;
  const int wd = ::inotify_add_watch(inotify_.get(), directory.c_str(), kDirectoryEvents);
  if (wd < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return;
    ++unwatched_;
    if (watch_limit_log_.occurred(mono_now())) {
      log::warn("cannot watch a directory, it is only rescanned; raise fs.inotify.max_user_watches with sysctl",
                {{"path", directory}, {"error", error_of_errno(errno, "inotify_add_watch")}});
    }
    return;
  }
  directory_of_[wd] = directory;
  watch_of_[directory] = wd;
}

void Discovery::watch_link(const std::string& path) {
  if (!inotify_ || watch_of_.contains(path)) return;
  const int wd = ::inotify_add_watch(inotify_.get(), path.c_str(), IN_MODIFY);
  if (wd < 0) return;  // gone again, or no watches left: the rescan sees it
  link_of_[wd] = path;
  watch_of_[path] = wd;
}

std::vector<std::size_t> Discovery::scan(const std::function<void(const std::string&, const Selection&)>& found) {
  unwatched_ = 0;
  Walk state{found, std::vector<std::size_t>(selections_.size()), {}};
  for (const Selection& selection : selections_) {
    for (const std::string& root : selection.glob.roots()) {
      // A root that is not there yet: watch the nearest directory above it, to see it come.
      std::filesystem::path existing = root;
      std::error_code ec;
      while (existing.has_relative_path() && !std::filesystem::is_directory(existing, ec))
        existing = existing.parent_path();
      if (existing != root) {
        watch_directory(existing.string());
      } else {
        walk(root, 0, state);
      }
    }
  }
  return state.matched;
}

void Discovery::walk(const std::string& directory, int depth, Walk& state) {
  struct stat status {};
  if (depth > kMaxDepth || ::stat(directory.c_str(), &status) != 0) return;
  if (!state.seen.insert({status.st_dev, status.st_ino}).second) return;
  watch_directory(directory);  // before reading it, so that nothing slips in between
  const std::unique_ptr<DIR, int (*)(DIR*)> handle(::opendir(directory.c_str()), ::closedir);
  if (!handle) return;
  std::vector<std::string> below;
  while (const dirent* entry = ::readdir(handle.get())) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    const std::string path = join(directory, name);
    bool is_directory = entry->d_type == DT_DIR;
    bool is_file = entry->d_type == DT_REG;
    if (entry->d_type == DT_LNK || entry->d_type == DT_UNKNOWN) {
      if (::stat(path.c_str(), &status) != 0) continue;
      is_directory = S_ISDIR(status.st_mode);
      is_file = S_ISREG(status.st_mode);
    }
    if (is_directory) {
      const bool wanted = std::any_of(selections_.begin(), selections_.end(),
                                      [&](const Selection& s) { return s.glob.may_match_below(path); });
      if (wanted && !excluded(path)) below.push_back(path);
    } else if (is_file) {
      if (const Selection* selection = selection_of(path)) {
        ++state.matched[static_cast<std::size_t>(selection - selections_.data())];
        if (entry->d_type == DT_LNK) watch_link(path);
        state.found(path, *selection);
      }
    }
  }
  for (const std::string& path : below) walk(path, depth + 1, state);
}

bool Discovery::read_events(Changes& changes) {
  if (!inotify_) return false;
  alignas(inotify_event) char buffer[64 * 1024];
  const ssize_t n = ::read(inotify_.get(), buffer, sizeof buffer);
  if (n <= 0) return false;
  for (const char* at = buffer; at < buffer + n;) {
    const auto* event = reinterpret_cast<const inotify_event*>(at);
    at += sizeof(inotify_event) + event->len;
    if ((event->mask & IN_Q_OVERFLOW) != 0) {
      changes.rescan = true;
      continue;
    }
    if (const auto link = link_of_.find(event->wd); link != link_of_.end()) {
      changes.touched.insert(link->second);
      if ((event->mask & IN_IGNORED) != 0) {
        watch_of_.erase(link->second);
        link_of_.erase(link);
      }
      continue;
    }
    const auto found = directory_of_.find(event->wd);
    if (found == directory_of_.end()) continue;
    if ((event->mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF)) != 0) {
      // The name no longer stands for the watched directory.
      if ((event->mask & IN_MOVE_SELF) != 0) ::inotify_rm_watch(inotify_.get(), event->wd);
      watch_of_.erase(found->second);
      directory_of_.erase(found);
      changes.rescan = true;
      continue;
    }
    if (event->len == 0) continue;
    const std::string path = join(found->second, event->name);
    if ((event->mask & IN_ISDIR) != 0) {
      changes.rescan = changes.rescan || (event->mask & (IN_CREATE | IN_MOVED_TO)) != 0;
      continue;
    }
    changes.touched.insert(path);
    if ((event->mask & (IN_CREATE | IN_MOVED_TO)) != 0) changes.arrived.insert(path);
  }
  return true;
}

}  // namespace fantail
