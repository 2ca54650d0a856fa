#pragma once

#include <optional>
#include <vector>

#include "consumer/consumer.h"

namespace fantail {

/// One stream and how far each sink has taken it.
struct Consumer::Entry {
  StreamMeta meta;
  FileOffset base;                                 ///< its source offers nothing below
  std::vector<FileOffset> taken;                   ///< by sink
  std::vector<FileOffset> durable;                 ///< by sink
  std::vector<std::optional<FileOffset>> opening;  ///< by sink: where to open, while it could not be opened yet
  std::vector<std::optional<FileOffset>> start;    ///< by sink: where it began, while no cursor of it is stored
  struct Loss {
    ByteRange range;
    wire::LossReason reason;
  };
  std::vector<Loss> losses;  ///< not yet taken by every sink
  std::optional<FileOffset> sealing;
};

}  // namespace fantail
