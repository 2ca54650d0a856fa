#include "producer/discovery.h"

#include <dirent.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <tuple>

#include "producer/file_system.h"

namespace fantail {
namespace {

constexpr std::uint32_t kDirectoryEvents =
    IN_CREATE | IN_DELETE | IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
constexpr int kMaxDepth = 64;

std::string join(const std::string& directory, std::string_view name) {
  return (directory == "/" ? "" : directory) + "/" + std::string(name);
}

/// What the name leads to, through links; nothing's if it is not there.
std::pair<dev_t, ino_t> id_of(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return {};
  return {status.st_dev, status.st_ino};
}

}  // namespace

struct Discovery::Walk {
  const std::function<void(const std::string&, const Selection&)>& found;
  std::vector<std::size_t> matched;
  bool unwatched_only = false;  ///< what is below is walked only if no events tell of it
  /// A directory has several names where links lead to it. Each of its files is wanted once, but one name may be where
  /// a pattern takes them and the other not: so it is walked once for each place in each pattern, and links in circles
  /// end.
  std::set<std::tuple<FileId, std::size_t, Glob::Place>> seen{};
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

bool Discovery::may_match_below(std::string_view directory) const {
  return std::any_of(selections_.begin(), selections_.end(),
                     [&](const Selection& s) { return !s.glob.places_of(directory).empty(); });
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
  names_of_[wd].insert(directory);  // a watch belongs to the directory: under another name it has the same number
  directories_[directory] = {wd, id};
}

/// The directory and all below it: their names do not stand for what is watched any more.
void Discovery::forget_directory(const std::string& directory) {
  const std::string below = join(directory, "");
  const auto forget = [&](auto it) {
    const auto names = names_of_.find(it->second.wd);
    names->second.erase(it->first);
    if (names->second.empty()) {
      ::inotify_rm_watch(inotify_.get(), names->first);  // fails when the kernel did it already
      names_of_.erase(names);
    }
    return directories_.erase(it);
  };
  if (const auto it = directories_.find(directory); it != directories_.end()) forget(it);
  for (auto it = directories_.lower_bound(below); it != directories_.end() && it->first.starts_with(below);) {
    it = forget(it);
  }
}

std::vector<std::string> Discovery::directories() const {
  std::vector<std::string> out(polled_.begin(), polled_.end());
  for (const auto& [directory, watched] : directories_) out.push_back(directory);
  return out;
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

bool Discovery::watch_if_link(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0 || S_ISREG(status.st_mode)) return false;
  const bool is_link = S_ISLNK(status.st_mode);
  if (is_link && ::stat(path.c_str(), &status) != 0) {
    await_target(path);
    return false;
  }
  if (S_ISDIR(status.st_mode)) return true;
  if (selection_of(path) == nullptr) return false;
  if (S_ISREG(status.st_mode)) {
    watch_link(path, {status.st_dev, status.st_ino});
  } else {
    refuse(path, status.st_mode);
  }
  return false;
}

/// A path that a pattern takes and that is no regular file. Of directories nobody expects to be read as one.
void Discovery::refuse(const std::string& path, mode_t mode) {
  const char* kind = S_ISFIFO(mode) ? "a FIFO" : S_ISSOCK(mode) ? "a socket" : "a device";
  if (S_ISDIR(mode) || !named_.insert(path).second) return;
  log::warn("only regular files are tailed, this one is left out", {{"path", path}, {"it_is", kind}});
}

void Discovery::check_links(Changes& changes) {
  check_roots(changes);
  for (const auto& [path, watched] : std::map(links_)) {
    const FileId target = id_of(path);
    if (target == watched.id) {
      struct stat link {};
      if (target == FileId{} && ::lstat(path.c_str(), &link) != 0) forget_link(path);
      continue;
    }
    changes.touched.insert(path);
    changes.arrived.insert(path);
    forget_link(path);
    watch_if_link(path);
    await_target(path);
  }
}

/// To see that a link which leads nowhere leads somewhere: what is made there tells nobody of the link.
void Discovery::await_target(const std::string& path) {
  struct stat status {};
  const bool is_link = ::lstat(path.c_str(), &status) == 0 && S_ISLNK(status.st_mode);
  if (inotify_ && is_link && selection_of(path) != nullptr) links_.try_emplace(path, Watched{-1, id_of(path)});
}

/// Directories to begin in may be reached through links, and those are in directories that nobody watches.
void Discovery::check_roots(Changes& changes) {
  for (const Selection& selection : selections_) {
    for (const std::string& root : selection.glob.roots()) {
      const auto known = directories_.find(root);
      if (known == directories_.end() || known->second.id == id_of(root)) continue;
      forget_directory(root);
      changes.rescan = true;
    }
  }
}

std::vector<std::size_t> Discovery::scan(const std::function<void(const std::string&, const Selection&)>& found) {
  polled_.clear();
  forget_other_names();
  Walk state{found, std::vector<std::size_t>(selections_.size())};
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
  Walk state{found, std::vector<std::size_t>(selections_.size()), true};
  for (const std::string& directory : std::set<std::string>(polled_)) walk(directory, 0, state);
}

void Discovery::walk(const std::string& directory, int depth, Walk& state) {
  struct stat status {};
  if (depth > kMaxDepth || ::stat(directory.c_str(), &status) != 0) return;
  std::vector<bool> selects(selections_.size());
  for (std::size_t i = 0; i < selections_.size(); ++i) {
    for (const Glob::Place& place : selections_[i].glob.places_of(directory)) {
      if (state.seen.emplace(FileId{status.st_dev, status.st_ino}, i, place).second) selects[i] = true;
    }
  }
  if (std::find(selects.begin(), selects.end(), true) == selects.end()) return;
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
      if (::stat(path.c_str(), &status) != 0) {
        await_target(path);
        continue;
      }
      is_directory = S_ISDIR(status.st_mode);
      is_file = S_ISREG(status.st_mode);
    }
    if (is_directory) {
      if (may_match_below(path) && !excluded(path)) below.push_back(path);
    } else if (is_file) {
      const Selection* selection = selection_of(path);
      const auto index = static_cast<std::size_t>(selection - selections_.data());
      if (selection != nullptr && selects[index]) {
        ++state.matched[index];
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
    const auto found = names_of_.find(event->wd);
    if (found == names_of_.end()) continue;
    const std::set<std::string> directories = found->second;
    if ((event->mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF)) != 0) {
      for (const std::string& directory : directories) forget_directory(directory);
      changes.rescan = true;
    } else if ((event->mask & IN_ISDIR) != 0) {
      changes.rescan = changes.rescan || (event->mask & (IN_CREATE | IN_MOVED_TO)) != 0;
    } else if (event->len != 0) {
      for (const std::string& directory : directories) take_in(*event, directory, changes);
    }
  }
  return true;
}

/// What happened to an entry of this directory, or of one that has this name, too.
void Discovery::take_in(const inotify_event& event, const std::string& directory, Changes& changes) {
  const std::string path = join(directory, event.name);
  changes.touched.insert(path);
  if ((event.mask & (IN_DELETE | IN_MOVED_FROM)) != 0) changes.left.insert(path);
  if ((event.mask & IN_MOVED_FROM) != 0) {
    if (moving_.first != event.cookie) moving_ = {event.cookie, {}};
    const auto earlier = changes.origins.extract(path);
    moving_.second[directory] = earlier ? earlier.mapped() : path;
  } else if ((event.mask & IN_MOVED_TO) != 0 && event.cookie == moving_.first && !moving_.second.empty()) {
    changes.origins[path] = origin_in(directory);
  } else if ((event.mask & (IN_CREATE | IN_DELETE)) != 0) {
    changes.origins.erase(path);
  }
  if ((event.mask & (IN_CREATE | IN_MOVED_TO)) != 0) {
    changes.arrived.insert(path);
    // A link to a directory is no directory to inotify.
    if (watch_if_link(path) && may_match_below(path)) changes.rescan = true;
  }
}

/// Where what is moved to `directory` came from: by its name there if it was renamed within it, else by a name that
/// somebody wants.
const std::string& Discovery::origin_in(const std::string& directory) const {
  const auto& origins = moving_.second;
  auto origin = origins.find(directory);
  if (origin == origins.end()) {
    origin = std::find_if(origins.begin(), origins.end(), [this](const auto& o) { return selection_of(o.second); });
  }
  return origin == origins.end() ? origins.begin()->second : origin->second;
}

/// Of a directory with several names: those that lead there no more.
void Discovery::forget_other_names() {
  std::vector<std::string> stale;
  for (const auto& [directory, watched] : directories_) {
    if (names_of_.at(watched.wd).size() > 1 && id_of(directory) != watched.id) stale.push_back(directory);
  }
  for (const std::string& directory : stale) forget_directory(directory);
}

}  // namespace fantail
