#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "common/base/result.h"

namespace fantail {

/// Makes zstd frames, each whole and readable alone, with a checksum. One work space (about 2 MiB) for all files of an
/// output. Not thread-safe.
class ZstdFrames {
 public:
  ZstdFrames();
  ~ZstdFrames();

  /// `raw` as one frame, which borrows until the next call. Fails only for want of memory.
  Result<std::string_view> compress(std::string_view raw);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fantail
