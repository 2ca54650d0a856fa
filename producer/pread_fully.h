#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/base/result.h"

namespace fantail {

/// Fills `buffer` from `offset` of the open file on, as far as there is something; returns how many bytes. An error
/// names no path.
Result<std::size_t> pread_fully(int fd, std::span<std::byte> buffer, std::uint64_t offset);

}  // namespace fantail
