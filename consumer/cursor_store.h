#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/storage/database.h"
#include "common/storage/state_directory.h"
#include "consumer/sink.h"

namespace fantail {

/// The consumer's memory: how far each sink has got with each stream, what its outputs look like, which bytes are lost.
/// SQLite in the state directory; one transaction holds cursors and output lengths together, which is what makes
/// restarts exact. One thread.
class CursorStore {
 public:
  /// A damaged file is set aside and a fresh one begun; `set_aside` says where the old one is then.
  static Result<CursorStore> open(const StateDirectory& directory, std::string& set_aside);
  /// For commands, beside a consumer that runs or not: takes it as it is. kNotFound: there is none.
  static Result<CursorStore> open_existing(const std::filesystem::path& directory);

  NodeId id() const { return id_; }  ///< of this consumer, for ever

  /// The unique directory name of a node, and the newest stream of it that was known when the program started.
  struct NodeRow {
    std::string directory;
    std::uint64_t known_sequence = 0;
  };
  Result<NodeRow> node(NodeId node, const std::string& name);

  std::optional<FileOffset> cursor(const std::string& sink, StreamId stream) const;
  /// The files of a sink by path, as of its last checkpoint. The reference stays valid, not its elements.
  using Outputs = std::map<std::string, Checkpoint::Output>;
  const Outputs& outputs(const std::string& sink) { return outputs_[sink]; }

  struct MirrorRow {
    std::string path;  ///< DIR-relative name of the live mirror of its path
    std::string file;  ///< DIR-relative name of this stream's mirror
    std::uint64_t sequence = 0;
    WallTime first_seen;
  };
  std::map<StreamId, MirrorRow> mirrors(const std::string& sink) const;
  /// All of them or, when it fails, none.
  using NamedMirrors = std::vector<std::pair<StreamId, MirrorRow>>;
  Status save_mirrors(const std::string& sink, const NamedMirrors& rows);

  struct SinkCheckpoint {
    std::string sink;
    std::vector<Checkpoint::Position> positions;
    std::vector<Checkpoint::Output> outputs;
  };
  /// What is new of the streams themselves.
  struct StreamChanges {
    struct Told {
      NodeId node;
      wire::StreamInfo info;
    };
    std::map<StreamId, Told> told;          ///< as their node told of them last
    std::map<StreamId, FileOffset> sealed;  ///< complete at that length
    bool empty() const { return told.empty() && sealed.empty(); }
  };
  Status save(const std::vector<SinkCheckpoint>& sinks, const std::map<NodeId, std::uint64_t>& known_sequences,
              const StreamChanges& streams = {});

  /// The streams of `node` with a sequence greater than `after`, in that order, until `take` returns false. Of what it
  /// gives `head` is the final length, if it is known. Returns whether there are more.
  Result<bool> streams_of(NodeId node, std::uint64_t after, const std::function<bool(wire::StreamInfo)>& take);

  struct Loss {
    StreamMeta stream;
    ByteRange range;
    wire::LossReason reason;
  };
  /// One that is recorded already, before a crash, is not recorded again.
  Status record_loss(const Loss& loss);
  /// This many are kept, the latest.
  static constexpr std::int64_t kMaxLosses = 100'000;

  struct LossRow {
    StreamId stream;
    std::string node, topic, path;
    ByteRange range;
    std::string reason;
    WallTime time;
  };
  /// In the order in which they were recorded.
  Result<std::vector<LossRow>> losses();
  /// How many there were before those that are kept.
  Result<std::int64_t> dropped_losses();

  struct StreamRow {
    NodeId node;
    std::string node_name;
    wire::StreamInfo info;  ///< `head` is the final length, if it is known
  };
  /// All that nodes told of, and those of which only a cursor is left.
  Result<std::vector<StreamRow>> streams();
  /// How far each sink has got with `stream`, by key; those that have it.
  std::map<std::string, FileOffset> cursors(StreamId stream) const;
  /// Puts back the cursors of these streams that are behind `to`, in one transaction that survives power loss. Returns
  /// for how many streams there was one. Not while a checkpoint of before is still to be saved.
  Result<std::size_t> rewind(const std::vector<StreamId>& streams, FileOffset to);

 private:
  explicit CursorStore(Database database) : database_(std::move(database)) {}
  static Result<CursorStore> open_file(const std::filesystem::path& path);
  Status load();
  Status save_streams(const StreamChanges& changes);
  Status drop_old_losses();

  Database database_;
  NodeId id_;
  std::unordered_map<std::string, std::unordered_map<StreamId, FileOffset>> cursors_;
  std::map<std::string, Outputs> outputs_;
  std::map<std::string, std::map<StreamId, MirrorRow>> mirrors_;
  struct KnownNode {
    NodeRow row;
    std::string name;
  };
  std::map<NodeId, KnownNode> nodes_;
};

}  // namespace fantail
