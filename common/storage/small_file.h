#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "common/base/result.h"

namespace fantail {

/// A file that is read and written as a whole. At most `kMaxSmallFileBytes` are read of it; kNotFound where there is
/// none.
Result<std::string> read_small_file(const std::filesystem::path& path);
inline constexpr std::size_t kMaxSmallFileBytes = 4096;

/// Puts `contents` in the place of what `path` held, or of nothing. At every moment, power loss included, the file
/// holds all of the old or all of the new contents. On error it is the old one, or nobody can tell (the last fsync
/// failed). kInvalid: more than kMaxSmallFileBytes.
Status replace_small_file(const std::filesystem::path& path, std::string_view contents);

}  // namespace fantail
