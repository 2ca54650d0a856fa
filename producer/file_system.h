#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/clock.h"

namespace fantail {

/// Whether changes that other hosts make in this directory are told to nobody here: network and user-space file
/// systems, where inotify is blind. False where it cannot be asked.
bool on_network_file_system(const std::string& directory);
/// The same of the kind that statfs(2) tells.
bool is_network_file_system(std::uint32_t kind);

/// When the file at `path` was created, by the file system's clock, which ticks every few milliseconds; nothing where
/// that does not tell (statx(2), STATX_BTIME).
std::optional<WallTime> birth_of(const std::string& path);
/// When an open file was changed last, by the same clock. Of one that has no name left: when it lost the last, or was
/// written to later.
std::optional<WallTime> last_change_of(int fd);

}  // namespace fantail
