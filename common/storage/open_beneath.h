#pragma once

#include <sys/types.h>

#include <string>

#include "common/base/unique_fd.h"

namespace fantail {

/// How a name is resolved. kTogether is one system call, openat2 of Linux 5.6; where that is missing, or a container
/// forbids it, it is kOneByOne by itself.
enum class Resolve : unsigned char { kTogether, kOneByOne };

/// As openat(2), but `name` (relative, none of its parts `..`) stays beneath `directory` and goes through no symbolic
/// link; O_NOFOLLOW and O_CLOEXEC go without saying. For names that come from somebody else. On failure the descriptor
/// is empty and errno says why; ELOOP or ENOTDIR where a link or a file is in the way.
UniqueFd open_beneath(int directory, const std::string& name, int flags, mode_t mode = 0,
                      Resolve how = Resolve::kTogether);

/// The same for each directory of `name` that is not there yet, the last part of it left out. How many were made; -1
/// with errno on failure.
int make_directories_beneath(int directory, const std::string& name, mode_t mode = 0755);

}  // namespace fantail
