#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "common/base/clock.h"
#include "common/base/result.h"

namespace fantail {

/// When a file gets another name and a new one is begun in its place.
struct Rotation {
  std::uint64_t bytes = 0;  ///< as soon as it is so long; 0: whatever its length
  Duration every{};         ///< so long after its first byte; 0: whatever its age

  bool wanted() const { return bytes > 0 || every > Duration::zero(); }
  bool due(std::uint64_t length, WallTime began, WallTime now) const;
};

/// True for names whose files hold zstd frames.
bool is_compressed_name(std::string_view path);

/// `path` with the time behind it, in front of ".zst", and a counter behind that while a file of this name exists.
std::string rotated_name(const std::string& path, WallTime now);

/// The path itself, or where it leads when it is a symbolic link: what is renamed is the file, not the link.
std::string file_of(const std::string& path);

/// Gives the finished file of `length` bytes at `path` its new name, unless it has that already, and never in place of
/// another file. False: it is not at `path` any more. Any moment is good for repeating it.
Result<bool> rename_finished(const std::string& path, const std::string& to, std::uint64_t length);

/// The directory that has the entry of `path`.
std::string directory_of(const std::string& path);
/// Makes the entries of directories durable; one that does not exist any more has none.
Status sync_directories(const std::set<std::string>& directories);

}  // namespace fantail
