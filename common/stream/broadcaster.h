#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <vector>

#include "common/base/log.h"
#include "common/stream/pacing.h"
#include "common/stream/published_streams.h"
#include "common/stream/turn_order.h"
#include "common/transport/broadcast.h"
#include "common/wire/codec.h"
#include "common/wire/compression.h"

namespace fantail {

struct CompressionConfig {
  enum class Mode : std::uint8_t { kAuto, kNone, kZstd };
  Mode mode = Mode::kAuto;
  int level = 1;
};

struct BroadcastConfig {
  std::uint32_t chunk_bytes = 256 * 1024;  ///< raw, at most; a live chunk is whatever is there
  bool adapt_to_loss = false;              ///< smaller messages while receivers report losses
  std::uint64_t rate_bytes_per_s = 0;      ///< pacing; 0: as fast as receivers take it
  std::vector<TopicLimit> limits;          ///< pacing of some topics; of several that a stream is under all hold
  bool fair = false;                       ///< topics share the broadcast by bytes; else streams take turns
  Duration patience = 200ms;               ///< how long one full receiver may hold up the others
  CompressionConfig compression;
};

struct BroadcastCounters {
  std::uint64_t chunks_sent = 0;
  std::uint64_t raw_bytes_sent = 0;
  std::uint64_t wire_bytes_sent = 0;
  std::uint64_t chunks_skipped_a_receiver = 0;  ///< sent with somebody's queue full: that one has a gap now
  std::uint64_t read_errors = 0;
};

/// Sends what is new of every stream, in turns: at most 1 MiB of one stream, then the next. Knows nothing of consumers.
class Broadcaster {
 public:
  struct Callbacks {
    std::function<bool(const PublishedStream&)> wanted;          ///< does anybody want its topic now
    std::function<std::size_t()> receivers;                      ///< how many share the broadcast
    std::function<void(PublishedStream&)> sent;                  ///< `info.sent` moved
    std::function<void(PublishedStream&, const Error&)> broken;  ///< kReplaced; its owner seals it
  };

  Broadcaster(BroadcastConfig config, PublishedStreams& streams, BroadcastPort& port, FramePool& pool,
              Callbacks callbacks);

  /// `stream` has, or may have, bytes beyond `info.sent`.
  void enqueue(PublishedStream& stream);
  /// Somebody new is listening: look again at the streams that nobody wanted.
  void unpark();
  /// Before a stream is removed.
  void forget(StreamId stream);

  /// Sends a bounded amount; returns how many chunks.
  std::size_t turn(MonoTime now);
  /// When to call again although nothing happens: while blocked or paced. Nothing: only for new bytes.
  std::optional<MonoTime> due(MonoTime now);
  /// A receiver reports that broadcast bytes did not reach it.
  void reported_loss(MonoTime now) { sizer_.lost(now); }
  bool idle() const { return !prepared_ && order_.empty(); }
  bool blocked() const { return prepared_.has_value() && patience_.blocked(); }
  const BroadcastCounters& counters() const { return counters_; }

  /// Encodes one chunk the way broadcasts are encoded (used for fetches too): raw in `buffer`, result the payload to
  /// send. Other buffers that it needs are of `pool`.
  Frame to_payload(wire::Chunk& chunk, FramePool::Buffer&& buffer, bool compress, FramePool& pool);
  bool compressing() const;

 private:
  struct Prepared {
    StreamId stream;
    wire::Chunk chunk;
    BroadcastMessage message;
    std::size_t wire_bytes;
    bool may_compress;
  };
  enum class Step : std::uint8_t { kSent, kNothing, kWait, kLater };

  Step step(PublishedStream& stream, MonoTime now);
  Result<bool> prepare(PublishedStream& stream);
  Step flush(MonoTime now);
  void retry_later(StreamId stream, MonoTime now);
  void compress_prepared();
  void build_message(Prepared& prepared, Frame payload);

  BroadcastConfig config_;
  PublishedStreams& streams_;
  BroadcastPort& port_;
  FramePool& pool_;
  Callbacks callbacks_;
  wire::Encoder encoder_;
  wire::ChunkCompressor compressor_;
  TokenBucket bucket_;
  Patience patience_;
  CompressionPolicy policy_;
  MessageSizer sizer_;
  double ratio_ = 1;  ///< raw to wire bytes of recent chunks
  BroadcastCounters counters_;
  TurnOrder order_;
  std::vector<StreamId> parked_;
  std::set<StreamId> unreadable_;     ///< for now; tried again at retry_reads_at_
  std::optional<Prepared> prepared_;  ///< read, encoded, not yet accepted
  std::optional<MonoTime> waiting_since_;
  log::Repeated read_error_log_;
  MonoTime retry_reads_at_{};
};

}  // namespace fantail
