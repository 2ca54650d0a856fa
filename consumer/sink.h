#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "common/base/types.h"
#include "common/base/unique_fd.h"
#include "common/wire/messages.h"
#include "consumer/line_rules.h"

namespace fantail {

/// What sinks know of a stream. Lives as long as the consumer.
struct StreamMeta {
  StreamId stream;
  NodeId node;
  std::string node_name;  ///< as the node calls itself
  std::string node_dir;   ///< the same made unique and safe as one path component
  std::string topic;
  std::string path;  ///< from the wire: hostile
  std::uint64_t sequence = 0;
  WallTime first_seen;
};

/// What a sink has handed to the kernel and now wants on disk, as of one moment.
struct Checkpoint {
  struct Position {
    StreamId stream;
    FileOffset offset;  ///< everything below is in the output, by whole records
  };
  struct Output {
    std::string path;
    std::uint64_t length = 0;  ///< a restart cuts the file to this
    WallTime began{};          ///< when its first byte came, 0 when not known
    std::string rotated_to{};  ///< nothing more goes into it: it gets this name, a restart sees to it
    bool gone = false;         ///< there is no file of ours at this path any more
  };
  std::vector<UniqueFd> files;      ///< to fsync
  UniqueFd filesystem;              ///< to syncfs, when names changed too or there are too many files
  std::vector<Position> positions;  ///< that moved since the last checkpoint
  std::vector<Output> outputs;
};

/// Where streams end up. Each stream arrives in order and without duplicates; after a crash again from the last
/// checkpoint that was stored. One thread. A write that fails took nothing: the same bytes come again later.
class Sink {
 public:
  virtual ~Sink() = default;

  /// Names the sink in the cursor store: the same after a restart with the same flags.
  virtual const std::string& key() const = 0;

  /// Delivery of these is about to begin: what costs as much for many as for one can be done now. What fails is left to
  /// open_stream().
  virtual void expect(std::span<const StreamMeta> streams) { (void)streams; }
  /// Delivery of `stream` is to begin at `cursor`. The reference stays valid. Returns where the sink needs it to begin:
  /// lower than `cursor` when its output was damaged meanwhile.
  virtual Result<FileOffset> open_stream(const StreamMeta& stream, FileOffset cursor) = 0;
  virtual Status write(const StreamMeta& stream, FileOffset offset, std::span<const std::byte> bytes,
                       WallTime read_time) = 0;
  /// `range` will never come; what follows is behind it.
  virtual Status lose(const StreamMeta& stream, ByteRange range, wire::LossReason reason) = 0;
  /// The stream is complete at `final_length`.
  virtual Status seal(const StreamMeta& stream, FileOffset final_length) = 0;

  /// Called once per turn of the loop: hand what is buffered to the kernel, emit what has waited long enough.
  virtual Status flush(MonoTime now) = 0;
  /// The program ends: emit what only waits for more to come, where leaving it out would lose it.
  virtual void finish() {}
  /// A checkpoint is about to be taken, unless this fails: hand over what flush() may keep back, look at the files.
  virtual Status prepare_checkpoint() { return {}; }
  /// Streams whose output somebody spoilt, as prepare_checkpoint() saw: they are opened again and go on from where that
  /// says. Each is told once.
  virtual std::vector<StreamId> take_spoilt() { return {}; }
  /// After a successful prepare_checkpoint(). Positions are handed out once; if they could not be made durable the
  /// process ends.
  virtual Checkpoint checkpoint() = 0;
  /// The last checkpoint is in the store.
  virtual void stored() {}
  /// Nothing is waiting in memory.
  virtual bool drained() const = 0;
  /// Nothing only waits for a time to pass.
  virtual bool settled() const { return true; }
  virtual RecordCounters counters() const { return {}; }
};

}  // namespace fantail
