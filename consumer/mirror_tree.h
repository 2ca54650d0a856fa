#pragma once

#include <sys/types.h>

#include <string>
#include <utility>

#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace fantail {

/// The directory that mirrors are in. Names are relative to it and come over the wire: nothing here leaves the
/// directory or goes through a symbolic link in it. One thread.
class MirrorTree {
 public:
  /// Made where it is not there. kInvalid: it cannot be used; kBusy: another consumer has it, which would take our
  /// mirrors for files that somebody else put there. Locked until this object is gone.
  static Result<MirrorTree> open(const std::string& directory);

  const std::string& path() const { return path_; }  ///< absolute, however it was written
  int fd() const { return root_.get(); }

  /// Of writing, made with its directories where it is not there.
  Result<UniqueFd> open_file(const std::string& name);
  /// What stands there (S_IF...), 0 for nothing.
  Result<mode_t> type(const std::string& name) const;
  bool is_directory(const std::string& name) const;
  /// Makes the directories of `to`. That there is no `from` is no error.
  Status rename(const std::string& from, const std::string& to);

  /// Makes it again where somebody removed it.
  Status keep();
  /// Something was made or renamed since this was asked last: names have to be synced, too.
  bool take_names_changed() { return std::exchange(names_changed_, false); }

 private:
  MirrorTree(std::string path, UniqueFd root) : path_(std::move(path)), root_(std::move(root)) {}
  Status make_directories(const std::string& name);
  /// The directory that `name` is in; O_PATH.
  Result<UniqueFd> parent_of(const std::string& name) const;
  tl::unexpected<Error> problem(const std::string& name) const;

  std::string path_;
  UniqueFd root_;
  bool names_changed_ = false;
};

}  // namespace fantail
