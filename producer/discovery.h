#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/log.h"
#include "common/base/result.h"
#include "common/base/unique_fd.h"
#include "producer/glob.h"

struct inotify_event;

namespace fantail {

/// What to tail: a pattern and the topic of what it finds.
struct Selection {
  Glob glob;
  std::string topic;
  bool from_end = false;  ///< files that exist at the very first start begin at their end
};

/// Finds files: by walking the directories that patterns may match in, and by inotify on those directories. It tells
/// paths only; what file is behind a path is for others to decide. One thread.
class Discovery {
 public:
  /// `poll`: no inotify; only scan() finds anything.
  static Result<Discovery> open(std::vector<Selection> selections, std::vector<Glob> excludes, bool poll);

  /// The selection that takes this path, or null.
  const Selection* selection_of(std::string_view path) const;
  /// Whether any selection is `from_end`.
  bool from_end_anywhere() const;

  /// Walks everything and calls `found` for each matching regular file, or link to one. Watches directories on the way.
  /// Returns for each selection how many files matched.
  std::vector<std::size_t> scan(const std::function<void(const std::string& path, const Selection&)>& found);

  struct Changes {
    std::set<std::string> touched;               ///< something happened to the entry of this path
    std::set<std::string> arrived;               ///< among them: created or moved here
    std::set<std::string> left;                  ///< among them: deleted or moved away
    std::map<std::string, std::string> origins;  ///< where those that were moved here had been before
    bool rescan = false;                         ///< events were lost, or directories changed
  };
  /// Takes in a bounded number of events; false when there were none.
  bool read_events(Changes& changes);
  /// Adds the symbolic links that lead to another file, and asks for a scan if one leads to another directory, than
  /// when it was last asked: no watch of ours sees that.
  void check_links(Changes& changes);
  /// Whether events tell of changes of the file at this path: its directory is watched.
  bool sees(const std::string& path) const;

  /// Directories whose events are seen, and those that are polled.
  std::vector<std::string> directories() const;

  int fd() const { return inotify_.get(); }  ///< -1 when polling
  bool polling() const { return !inotify_; }
  /// Directories of which no events tell: on network file systems, or beyond the system's limit of watches.
  const std::set<std::string>& polled() const { return polled_; }
  /// Walks just those, like scan().
  void poll(const std::function<void(const std::string& path, const Selection&)>& found);

 private:
  Discovery(std::vector<Selection> selections, std::vector<Glob> excludes)
      : selections_(std::move(selections)), excludes_(std::move(excludes)) {}
  struct Walk;
  void walk(const std::string& directory, int depth, Walk& walk);
  using FileId = std::pair<dev_t, ino_t>;
  void watch_directory(const std::string& directory, FileId id);
  void forget_directory(const std::string& directory);
  /// Tells of changes of the file behind a symbolic link, which its directory's watch does not see.
  void await_target(const std::string& path);
  void watch_link(const std::string& path, FileId target);
  void forget_link(const std::string& path);
  /// Whether a link to a directory, or one, is there.
  bool watch_if_link(const std::string& path);
  void take_in(const inotify_event& event, const std::string& directory, Changes& changes);
  const std::string& origin_in(const std::string& directory) const;
  void forget_other_names();
  void check_roots(Changes& changes);
  void refuse(const std::string& path, mode_t mode);
  bool excluded(std::string_view path) const;
  bool may_match_below(std::string_view directory) const;

  std::vector<Selection> selections_;
  std::vector<Glob> excludes_;
  UniqueFd inotify_;
  struct Watched {
    int wd;
    FileId id;  ///< what the name led to when it was watched
  };
  std::map<int, std::set<std::string>> names_of_;  ///< of watched directories, through links
  std::map<std::string, Watched, std::less<>> directories_;
  std::map<int, std::set<std::string>> links_of_;  ///< several may lead to one file
  std::map<std::string, Watched, std::less<>> links_;
  std::set<std::string> polled_;
  /// Cookie of the last entry that was moved away, and its path by each name of its directory.
  std::pair<std::uint32_t, std::map<std::string, std::string>> moving_;
  std::set<std::string> named_;  ///< what cannot be read, or is no file, was told
  log::Repeated watch_limit_log_{std::chrono::minutes{10}};
  log::Repeated network_log_{std::chrono::hours{1}};
};

}  // namespace fantail
