#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/log.h"
#include "common/storage/database.h"
#include "common/storage/state_directory.h"
#include "common/stream/commit_ledger.h"
#include "common/wire/messages.h"
#include "producer/file_content.h"
#include "producer/position_file.h"
#include "producer/tailed_file.h"

namespace fantail {

/// The stream is made of an archive that is damaged or ends too early; what was sent of it stays readable.
inline bool is_damaged_archive(const std::optional<wire::LossReason>& gone) {
  return gone == wire::LossReason::kArchiveDamaged;
}
/// The stream is all that is in an archive, or all that can be read of it: readable as long as the archive is there.
inline bool ended_with_archive(bool sealed, const std::optional<ArchiveMark>& archive,
                               const std::optional<wire::LossReason>& gone) {
  return sealed && archive && (!gone || is_damaged_archive(gone));
}

/// What the producer knows of one stream and must know after a restart.
struct StreamRecord {
  wire::StreamInfo info;     ///< path: as first seen, the stream's name; sent: what fingerprint.cursor says
  std::string current_path;  ///< where the file is now
  FileKey key;
  Fingerprint fingerprint;
  std::optional<wire::LossReason> gone;  ///< sealed, and the bytes are not readable any more
  /// It is made of the decompressed bytes of an archive. If it has ended with that: how the file was then.
  std::optional<ArchiveMark> archive{};
  /// Where its exact position is kept.
  PositionFile::Slot slot = PositionFile::kNone;

  bool archive_damaged() const { return is_damaged_archive(gone); }
  bool ended_with_archive() const { return fantail::ended_with_archive(info.sealed, archive, gone); }
};

/// The producer's memory: SQLite in the state directory. New streams are on disk, power loss included, before their
/// first byte is sent, so a stream's id never changes; positions are saved every second, and noted at once in a file
/// beside it that survives the process. After a loss of power they may be old, which costs repeated bytes that
/// consumers recognise. The node id is kept in a small file of its own too, so that consumers know the node again when
/// the registry is lost. One thread.
class Registry {
 public:
  /// What opening came upon.
  struct Opening {
    bool lost = false;      ///< this node had a registry, and it is damaged or gone
    std::string set_aside;  ///< where what is left of it is now
    bool new_node = false;  ///< there was no node id left, or never one
  };
  /// A damaged registry is set aside and a fresh one begun.
  static Result<Registry> open(const StateDirectory& directory, Opening& opening);
  /// For commands, beside a producer that runs or not: takes it as it is. kNotFound: there is none.
  static Result<Registry> open_existing(const std::filesystem::path& directory);

  NodeId node() const { return node_; }
  /// The registry of this node was lost and what consumers know of its streams is not in yet. Stays so over restarts,
  /// until finish_rebuilding().
  bool rebuilding() const { return rebuilding_; }
  /// The very first start has been: what is found from now on has come since. One that was lost has been started too.
  bool started() const { return started_; }
  /// It was begun and not ended: what was there then and is not on record yet still counts as having been there.
  bool first_start_under_way() const { return first_start_under_way_; }
  Status set_started();
  /// Takes in the streams that are known again, in one transaction with the end of rebuilding().
  /// `last_sequence`: the greatest that anybody knows of.
  Status finish_rebuilding(const std::vector<StreamRecord>& streams, std::uint64_t last_sequence);
  /// In order of sequence, with the newest positions there are. `take` must not call this object.
  Status each_stream(const std::function<void(StreamRecord&&)>& take);
  Result<std::vector<StreamRecord>> load_streams();
  Status load_consumers(CommitLedger& ledger);
  Result<std::vector<CopyRecord>> load_copies();
  /// For how long durable consumers have been away.
  Result<std::map<std::string, Duration>> load_absences();
  /// With when each consumer of `ledger` was seen last.
  Status save_absences(const std::map<std::string, Duration>& absences, const CommitLedger& ledger);

  /// The sequence for the next new stream.
  std::uint64_t next_sequence() { return ++last_sequence_; }
  /// `part_of_first_start`: more will come of it, until set_started().
  Status insert(const std::vector<StreamRecord>& fresh, bool part_of_first_start = false);

  using Commits = std::map<std::pair<std::string, StreamId>, FileOffset>;  ///< by durable name and stream
  /// Positions, files, paths and seals of `changed`, and what consumers committed, in one transaction.
  Status save(const std::vector<StreamRecord>& changed, const Commits& commits);
  /// Where positions of the stream are noted; kNone where there is no room for it: a log line tells.
  PositionFile::Slot slot_for(StreamId stream, const Fingerprint& fingerprint);
  /// It was read so far. Survives the process, not the system. Cheap.
  void note(PositionFile::Slot slot, StreamId stream, const Fingerprint& fingerprint) {
    if (slot != PositionFile::kNone) positions_->write(slot, stream, fingerprint);
  }
  void release(PositionFile::Slot slot) {
    if (slot != PositionFile::kNone) positions_->erase(slot);
  }
  Status save_copies(const std::vector<CopyRecord>& changed, const std::vector<FileKey>& dropped);
  /// What was saved is on disk then, power loss included.
  Status sync();
  Status save_consumer(const std::string& name, const Interest& interest);
  Status remove_streams(const std::vector<StreamId>& streams);
  Status forget_consumer(const std::string& name);

 private:
  explicit Registry(Database database) : database_(std::move(database)) {}
  static Result<Registry> open_file(const std::filesystem::path& path, std::optional<NodeId> node);
  void open_positions(const std::filesystem::path& directory, bool owner);
  Status set_up(std::optional<NodeId> node);
  void take_noted(StreamRecord& record) const;
  Status insert_rows(const std::vector<StreamRecord>& streams, bool started = true);
  Status save_archives(const std::vector<StreamRecord>& streams);

  Database database_;
  std::optional<PositionFile> positions_;
  bool owner_ = false;
  log::Repeated positions_log_;
  NodeId node_;
  bool rebuilding_ = false;
  bool started_ = false;
  bool first_start_under_way_ = false;
  std::uint64_t last_sequence_ = 0;
};

}  // namespace fantail
