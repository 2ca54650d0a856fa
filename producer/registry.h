#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/storage/database.h"
#include "common/storage/state_directory.h"
#include "common/stream/commit_ledger.h"
#include "common/wire/messages.h"
#include "producer/tailed_file.h"

namespace fantail {

/// What the producer knows of one stream and must know after a restart.
struct StreamRecord {
  wire::StreamInfo info;     ///< path: as first seen, the stream's name; sent: what fingerprint.cursor says
  std::string current_path;  ///< where the file is now
  FileKey key;
  Fingerprint fingerprint;
  std::optional<wire::LossReason> gone;  ///< sealed, and the bytes are not readable any more
};

/// The producer's memory: SQLite in the state directory. New streams are on disk, power loss included, before their
/// first byte is sent, so a stream's id never changes; positions are saved every second and may be old after a crash,
/// which costs repeated bytes that consumers recognise. One thread.
class Registry {
 public:
  /// A damaged file is set aside and a fresh one begun; `set_aside` says where the old one is then.
  static Result<Registry> open(const StateDirectory& directory, std::string& set_aside);

  NodeId node() const { return node_; }
  Result<std::vector<StreamRecord>> load_streams();
  Status load_consumers(CommitLedger& ledger);

  /// The sequence for the next new stream.
  std::uint64_t next_sequence() { return ++last_sequence_; }
  Status insert(const std::vector<StreamRecord>& fresh);

  struct CommitRow {
    std::string consumer;
    StreamId stream;
    FileOffset offset;
  };
  /// Positions, paths and seals of `changed`, and what consumers committed, in one transaction.
  Status save(const std::vector<StreamRecord>& changed, const std::vector<CommitRow>& commits);
  Status save_consumer(const std::string& name, const Interest& interest);
  Status remove_streams(const std::vector<StreamId>& streams);
  Status forget_consumer(const std::string& name);

 private:
  explicit Registry(Database database) : database_(std::move(database)) {}
  static Result<Registry> open_file(const std::filesystem::path& path);
  Status set_up();

  Database database_;
  NodeId node_;
  std::uint64_t last_sequence_ = 0;
};

}  // namespace fantail
