#pragma once

#include <optional>
#include <utility>

#include "producer/tailer.h"

namespace fantail {

/// One stream and its file. For the sources of Tailer only.
struct Tailer::Tracked {
  StreamId id;
  std::uint64_t sequence;
  bool sealed;
  FileOffset head;                       ///< as recorded; of a sealed stream it is its end
  PositionFile::Slot slot;               ///< where its position is noted
  FileKey key;                           ///< of its file; empty while that holds the bytes of another
  std::optional<wire::LossReason> gone;  ///< as in StreamRecord
  std::optional<ArchiveMark> archive;    ///< the same
  TailedFile file;                       ///< has its position, and where it is now
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

  /// What consumers are told of it is with the publisher.
  explicit Tracked(const StreamRecord& r)
      : id(r.info.stream),
        sequence(r.info.sequence),
        sealed(r.info.sealed),
        head(r.info.head),
        slot(r.slot),
        key(r.key),
        gone(r.gone),
        archive(r.archive),
        file(r.current_path, r.key, r.fingerprint),
        verified_end(r.info.head) {}

  bool archive_damaged() const { return is_damaged_archive(gone); }
  bool ended_with_archive() const { return fantail::ended_with_archive(sealed, archive, gone); }
};

/// A file that may be a copy.
struct Tailer::Place {
  const std::string& path;
  FileKey key;
  Content& content;
  const ArchiveContent* archive = nullptr;  ///< the content, if it is of one
};

}  // namespace fantail
