#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>

#include "common/base/log.h"
#include "common/stream/published_streams.h"
#include "common/transport/control_link.h"
#include "common/transport/frame.h"
#include "common/wire/codec.h"

namespace fantail {

struct FetchCounters {
  std::uint64_t requests = 0;
  std::uint64_t bytes_served = 0;
  std::uint64_t unavailable_bytes = 0;
  std::uint64_t refused_queue_full = 0;  ///< the consumer asks again
};

/// Answers Fetch out of the sources themselves, peer by peer in turns, never more than its share of a turn and of
/// memory: a peer that takes nothing holds up itself only.
class FetchServer {
 public:
  struct Callbacks {
    std::function<void(PublishedStream&, const Error&)> broken;  ///< kReplaced; its owner seals it
    /// Other buffers that it needs are taken from the pool, too.
    std::function<Frame(wire::Chunk&, FramePool::Buffer&&, FramePool&)> to_payload;
  };
  FetchServer(std::uint32_t chunk_bytes, PublishedStreams& streams, ControlPort& port, Callbacks callbacks);

  void add(PeerId peer, const wire::Fetch& fetch);
  void forget(PeerId peer);
  /// Serves a bounded amount; returns the bytes served.
  std::size_t turn(MonoTime now);
  bool idle() const { return queues_.empty(); }
  const FetchCounters& counters() const { return counters_; }

 private:
  enum class Step : std::uint8_t { kServed, kFinished, kWait, kLater };
  struct Queued : wire::Fetch {
    bool under_way = false;  ///< its source is not there yet
  };
  std::size_t share() const;
  Step serve(PeerId peer, Queued& fetch, FramePool& pool, std::size_t& bytes, MonoTime now);
  Step end(PeerId peer, const wire::Fetch& fetch, FileOffset to);
  Step unavailable(PeerId peer, const wire::Fetch& fetch, FileOffset to, wire::LossReason reason);

  std::uint32_t chunk_bytes_;
  PublishedStreams& streams_;
  ControlPort& port_;
  Callbacks callbacks_;
  wire::Encoder encoder_;
  FetchCounters counters_;
  std::map<PeerId, std::deque<Queued>> queues_;  ///< none is empty
  std::map<PeerId, FramePool> pools_;            ///< of each peer that fetched: counts what is on its way to it
  PeerId served_first_{};                        ///< in the last turn
  log::Repeated read_error_log_;
};

}  // namespace fantail
