#pragma once

#include <functional>
#include <string>

#include "producer/tailed_file.h"

namespace fantail {

/// A file that may be removed when nobody needs it any more.
struct RemovableFile {
  int fd = -1;  ///< stays open: what is written to the file all the same can be read from it
  std::string path;
  std::string aside;  ///< a name of ours beside it, which nobody else uses
  FileKey key;
  std::uint64_t length = 0;
};

/// Why a file was left, and where it is now.
struct LeftAlone {
  std::string reason;
  std::string path;
};

/// Removes it, unless somebody has it open for writing, it has another name or length, the path leads elsewhere, or
/// `intact` says no. While it looks, nobody can open the file for writing where the kernel grants a lease; elsewhere
/// it must be untouched for `quiet`. It is renamed before it is removed, so that a file which takes its place in that
/// moment is put back instead of being removed.
tl::expected<void, LeftAlone> remove_file(const RemovableFile& file, Duration quiet,
                                          const std::function<bool()>& intact);

}  // namespace fantail
