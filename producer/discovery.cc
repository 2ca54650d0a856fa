#include "producer/discovery.h"

#include <dirent.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>

#include "producer/file_system.h"

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
  bool unwatched_only = false;             ///< what is below is walked only if no events tell of it
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

bool Discovery::from_end_anywhere() const {
  return std::any_of(selections_.begin(), selections_.end(), [](const Selection& s) { return s.from_end; });
}

void Discovery::watch_directory(const std::string& directory, FileId id) {
  if (!inotify_) return;
  if (const auto known = directories_.find(directory); known != directories_.end()) {
    if (known->second.id == id) return;
    forget_directory(directory);  // another directory has this name now
  }
  if (on_network_file_system(directory)) {
    polled_.insert(directory);
    if (network_log_.occurred(mono_now())) {
      log::info("directories on network file systems are polled", {{"path", directory}});
    }
    return;
  }
  const int wd = ::inotify_add_watch(inotify_.get(), directory.c_str(), kDirectoryEvents);
  if (wd < 0) {
    if (errno == ENOENT || errno == ENOTDIR || errno == EACCES) return;  // walk() tells of the last
    polled_.insert(directory);
    if (watch_limit_log_.occurred(mono_now())) {
      log::warn("cannot watch a directory, it is polled; raise fs.inotify.max_user_watches with sysctl",
                {{"path", directory}, {"error", error_of_errno(errno, "inotify_add_watch")}});
    }
    return;
  }
  // A watch belongs to the directory, not to its name: under another name it had the same number.
  if (const auto before = directory_of_.find(wd); before != directory_of_.end()) directories_.erase(before->second);
  directory_of_[wd] = directory;
  directories_[directory] = {wd, id};
}

/// The directory and all below it: their names do not stand for what is watched any more.
void Discovery::forget_directory(const std::string& directory) {
  const std::string below = join(directory, "");
  const auto forget = [&](auto it) {
    ::inotify_rm_watch(inotify_.get(), it->second.wd);  // fails when the kernel did it already
    directory_of_.erase(it->second.wd);
    return directories_.erase(it);
  };
  if (const auto it = directories_.find(directory); it != directories_.end()) forget(it);
  for (auto it = directories_.lower_bound(below); it != directories_.end() && it->first.starts_with(below);) {
    it = forget(it);
  }
}

bool Discovery::sees(const std::string& path) const {
  const auto slash = path.rfind('/');
  if (!inotify_ || slash == std::string::npos) return false;
  return directories_.contains(std::string_view(path).substr(0, std::max<std::size_t>(slash, 1)));
}

void Discovery::watch_link(const std::string& path, FileId target) {
  if (!inotify_) return;
  if (const auto known = links_.find(path); known != links_.end()) {
    if (known->second.id == target) return;
    forget_link(path);
  }
  const int wd = ::inotify_add_watch(inotify_.get(), path.c_str(), IN_MODIFY);
  if (wd < 0) return;  // gone again, or no watches left: the rescan sees it
  links_of_[wd].insert(path);
  links_[path] = {wd, target};
}

void Discovery::forget_link(const std::string& path) {
  const auto known = links_.find(path);
  if (known == links_.end()) return;
  const auto others = links_of_.find(known->second.wd);
  if (others != links_of_.end()) {
    others->second.erase(path);
    if (others->second.empty()) {
      ::inotify_rm_watch(inotify_.get(), known->second.wd);
      links_of_.erase(others);
    }
  }
  links_.erase(known);
}

void Discovery::watch_if_link(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0 || S_ISREG(status.st_mode) || selection_of(path) == nullptr) return;
  const bool is_link = S_ISLNK(status.st_mode);
  if (is_link && ::stat(path.c_str(), &status) != 0) return;
  if (!S_ISREG(status.st_mode)) return refuse(path, status.st_mode);
  watch_link(path, {status.st_dev, status.st_ino});
}

/// A path that a pattern takes and that is no regular file. Of directories nobody expects to be read as one.
void Discovery::refuse(const std::string& path, mode_t mode) {
  const char* kind = S_ISFIFO(mode) ? "a FIFO" : S_ISSOCK(mode) ? "a socket" : "a device";
  if (S_ISDIR(mode) || !named_.insert(path).second) return;
  log::warn("only regular files are tailed, this one is left out", {{"path", path}, {"it_is", kind}});
}

void Discovery::check_links(Changes& changes) {
  for (const auto& [path, watched] : std::map(links_)) {
    struct stat status {};
    FileId target{};  // of a link that leads nowhere
    if (::stat(path.c_str(), &status) == 0) target = {status.st_dev, status.st_ino};
    if (target == watched.id) continue;
    changes.touched.insert(path);
    changes.arrived.insert(path);
    forget_link(path);
    watch_if_link(path);
    const bool is_link = ::lstat(path.c_str(), &status) == 0 && S_ISLNK(status.st_mode);
    if (is_link) links_.try_emplace(path, Watched{-1, target});  // to see it lead somewhere again
  }
}

std::vector<std::size_t> Discovery::scan(const std::function<void(const std::string&, const Selection&)>& found) {
  polled_.clear();
  Walk state{found, std::vector<std::size_t>(selections_.size()), {}, false};
  for (const Selection& selection : selections_) {
    for (const std::string& root : selection.glob.roots()) {
      // A root that is not there yet: watch the nearest directory above it, to see it come.
      std::filesystem::path existing = root;
      std::error_code ec;
      while (existing.has_relative_path() && !std::filesystem::is_directory(existing, ec))
        existing = existing.parent_path();
      struct stat status {};
      if (existing != root) {
        if (::stat(existing.c_str(), &status) == 0) watch_directory(existing.string(), {status.st_dev, status.st_ino});
      } else {
        walk(root, 0, state);
      }
    }
  }
  return state.matched;
}

void Discovery::poll(const std::function<void(const std::string&, const Selection&)>& found) {
  Walk state{found, std::vector<std::size_t>(selections_.size()), {}, true};
  for (const std::string& directory : std::set<std::string>(polled_)) walk(directory, 0, state);
}

void Discovery::walk(const std::string& directory, int depth, Walk& state) {
  struct stat status {};
  if (depth > kMaxDepth || ::stat(directory.c_str(), &status) != 0) return;
  if (!state.seen.insert({status.st_dev, status.st_ino}).second) return;
  watch_directory(directory, {status.st_dev, status.st_ino});  // before reading it, so that nothing slips in between
  const std::unique_ptr<DIR, int (*)(DIR*)> handle(::opendir(directory.c_str()), ::closedir);
  if (!handle) {
    if (errno != ENOENT && named_.insert(directory).second) {
      log::warn("cannot read a directory, will keep trying", {{"error", error_of_errno(errno, directory)}});
    }
    return;
  }
  named_.erase(directory);
  std::vector<std::string> below;
  while (const dirent* entry = ::readdir(handle.get())) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    const std::string path = join(directory, name);
    bool is_directory = entry->d_type == DT_DIR;
    bool is_file = entry->d_type == DT_REG;
    if (!is_directory && !is_file) {
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
        if (entry->d_type == DT_LNK) watch_link(path, {status.st_dev, status.st_ino});
        state.found(path, *selection);
      }
    } else if (selection_of(path) != nullptr) {
      refuse(path, status.st_mode);
    }
  }
  for (const std::string& path : below) {
    if (!state.unwatched_only || !directories_.contains(path)) walk(path, depth + 1, state);
  }
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
    if (const auto links = links_of_.find(event->wd); links != links_of_.end()) {
      const std::set<std::string> paths = links->second;
      changes.touched.insert(paths.begin(), paths.end());
      if ((event->mask & IN_IGNORED) != 0) {
        for (const std::string& path : paths) forget_link(path);
      }
      continue;
    }
    const auto found = directory_of_.find(event->wd);
    if (found == directory_of_.end()) continue;
    if ((event->mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF)) != 0) {
      forget_directory(std::string(found->second));
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
    if ((event->mask & (IN_DELETE | IN_MOVED_FROM)) != 0) changes.left.insert(path);
    if ((event->mask & IN_MOVED_FROM) != 0) {
      const auto earlier = changes.origins.extract(path);
      moving_ = {event->cookie, earlier ? earlier.mapped() : path};
    } else if ((event->mask & IN_MOVED_TO) != 0 && event->cookie == moving_.first) {
      changes.origins[path] = std::exchange(moving_, {}).second;
    } else if ((event->mask & (IN_CREATE | IN_DELETE)) != 0) {
      changes.origins.erase(path);
    }
    if ((event->mask & (IN_CREATE | IN_MOVED_TO)) != 0) {
      changes.arrived.insert(path);
      watch_if_link(path);
    }
  }
  return true;
}

}  // namespace fantail
