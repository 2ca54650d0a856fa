#pragma once

#include <filesystem>
#include <utility>

#include "common/base/result.h"

namespace fantail {

/// A directory under $TMPDIR or /tmp that only we can enter, for sockets and files of one run; removed with all that is
/// in it when this ends.
class PrivateDirectory {
 public:
  static Result<PrivateDirectory> make();
  PrivateDirectory(PrivateDirectory&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  PrivateDirectory& operator=(PrivateDirectory&&) = delete;
  ~PrivateDirectory();
  const std::filesystem::path& path() const { return path_; }

 private:
  explicit PrivateDirectory(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path path_;
};

}  // namespace fantail
