#pragma once

#include <optional>

#include "producer/tailer.h"

namespace fantail {

/// One stream and its file. For the sources of Tailer only.
struct Tailer::Tracked {
  StreamRecord record;  ///< the parts that do not change often; the rest is in `file` and the publisher
  TailedFile file;
  MonoTime active{};
  FileOffset verified_end;  ///< its own bytes were seen up to here, read or not
  std::optional<MonoTime> deleted_since;
  std::optional<MonoTime> sealed_since;

  explicit Tracked(StreamRecord r) : record(std::move(r)), file(record.current_path, record.key, record.fingerprint) {}
};

}  // namespace fantail
