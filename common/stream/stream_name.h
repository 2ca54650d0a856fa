#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "common/base/types.h"

namespace fantail {

/// A stream by the names that people have for it.
struct NamedStream {
  StreamId stream;
  std::string path;          ///< as first seen
  std::string current_path;  ///< where the file is now; the same where that is not known
};

/// The stream that `name` means: its id, at least 8 digits of the beginning of it, or a path. Where a file is now
/// counts before the names that others had. kNotFound: none; kInvalid: several, which the sentence lists.
Result<StreamId> find_by_name(std::string_view name, const std::vector<NamedStream>& streams);

}  // namespace fantail
