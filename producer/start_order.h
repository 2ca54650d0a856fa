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

/// A file as a walk found it.
struct FoundFile {
  std::string path;
  FileStatus status;
};

/// Equal ones stay in the order in which they are. Records are looked at, each once.
void arrange(std::vector<FoundFile>& files, StartOrder order);
void arrange(std::vector<StreamRecord>& records, StartOrder order);

}  // namespace fantail
