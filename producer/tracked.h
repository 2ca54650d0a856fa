#pragma once

#include <optional>
#include <utility>

#include "producer/tailer.h"

namespace fantail {

/// One stream and its file. For the sources of Tailer only.
struct Tailer::Tracked {
  StreamRecord record;  ///< what does not change often; its position and where it is now are in `file`
  TailedFile file;
  MonoTime active{};
  FileOffset verified_end;        ///< its own bytes were seen up to here, read or not
  bool seen = false;              ///< its file was there, in this run
  bool astray = false;            ///< its name, if it has one, is where nobody watches
  std::uint64_t names = 1;        ///< hard links, when it was looked at
  std::uint64_t met_in_walk = 0;  ///< the last walk that came by one of its names
  /// The end of what a copy holds of a stream of which more was seen: the rest will be a loss.
  std::optional<FileOffset> copied_to;
  /// It goes on in an archive, and so much of it was seen before: what the archive has not will be a loss.
  std::optional<FileOffset> seen_to;
  /// Its file holds other bytes by now, and archives that may hold its own are read through.
  std::optional<wire::LossReason> without_file;
  std::optional<MonoTime> deleted_since;
  std::optional<MonoTime> sealed_since;

  explicit Tracked(StreamRecord r)
      : record(std::move(r)), file(std::exchange(record.current_path, {}), record.key, record.fingerprint) {}
};

}  // namespace fantail
