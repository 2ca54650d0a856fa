#pragma once

#include <filesystem>
#include <string>

#include "common/base/result.h"
#include "common/base/types.h"
#include "common/base/unique_fd.h"

namespace fantail {

/// Where a program keeps what must survive it. Exclusively ours while this object lives.
class StateDirectory {
 public:
  /// Creates it (mode 0750) where it is missing and locks it. kBusy names the process that holds it.
  static Result<StateDirectory> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  /// Who we are as long as this directory lives; drawn when it is asked for first. kCorrupt: the file that has it is
  /// damaged.
  Result<NodeId> node_id() const;
  /// Renames a damaged `file` (and SQLite's companions) to `file.damaged-<UTC>` and returns the new name.
  Result<std::filesystem::path> set_aside(const std::string& file) const;

 private:
  StateDirectory(std::filesystem::path path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  std::filesystem::path path_;
  UniqueFd lock_;
};

/// $STATE_DIRECTORY (systemd), else /var/lib/fantail/<program> as root, else $XDG_STATE_HOME or ~/.local/state,
/// /fantail/<program>.
std::filesystem::path default_state_directory(const std::string& program);

}  // namespace fantail
