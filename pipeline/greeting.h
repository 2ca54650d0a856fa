#pragma once

#include <cstddef>
#include <string>

#include "common/wire/messages.h"

namespace fantail::pipeline {

inline constexpr std::size_t kMaxMessageBytes = 64 * 1024 * 1024;  ///< of arguments or a result, on every link of ours

/// How this process greets; another instance with each call.
wire::Peer self_as(wire::Role role, std::string name);

}  // namespace fantail::pipeline
