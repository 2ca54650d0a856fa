#pragma once

#include <cstdint>
#include <string>

namespace fantail {

/// Whether changes that other hosts make in this directory are told to nobody here: network and user-space file
/// systems, where inotify is blind. False where it cannot be asked.
bool on_network_file_system(const std::string& directory);
/// The same of the kind that statfs(2) tells.
bool is_network_file_system(std::uint32_t kind);

}  // namespace fantail
