#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "producer/registry.h"

namespace fantail {

/// With which of several files to begin.
enum class StartOrder : std::uint8_t {
  kOldest,  ///< least modification time first, so that a backlog comes in the order in which it came about
  kNewest,
  kName
};

/// Each looks at every file once; equal ones stay in the order in which they are.
void arrange(std::vector<std::string>& paths, StartOrder order);
void arrange(std::vector<StreamRecord>& records, StartOrder order);

}  // namespace fantail
