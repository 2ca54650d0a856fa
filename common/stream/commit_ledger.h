#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/clock.h"
#include "common/wire/messages.h"

namespace fantail {

/// What a durable consumer wants of a node: its topics and its share of the streams.
struct Interest {
  std::vector<std::string> topics;  ///< empty: all
  std::uint16_t shard_index = 0;    ///< 0-based
  std::uint16_t shard_count = 1;
  bool wants(const wire::StreamInfo& stream) const;
  bool operator==(const Interest&) const = default;
};

/// Whether share `index` of `count` takes the stream: the highest digest of (stream, share) wins, so that changing
/// `count` moves as few streams as possible (rendezvous hashing; Thaler and Ravishankar, "A name-based mapping scheme
/// for rendezvous").
bool shard_takes(StreamId stream, std::uint16_t index, std::uint16_t count);

/// Which durable consumer has which bytes safe on its disk. What is said here is only ever true: positions never go
/// back.
class CommitLedger {
 public:
  struct Consumer {
    Interest interest;
    WallTime last_seen;
    std::unordered_map<StreamId, FileOffset> positions;
    bool connected = false;
    bool was_here = false;  ///< connected at some time in this run
  };

  /// A durable consumer greeted us, or was loaded from the registry.
  void seen(const std::string& name, Interest interest, WallTime now, bool connected);
  void disconnected(const std::string& name, WallTime now);
  void forget_consumer(const std::string& name);
  /// False when it was known already.
  bool commit(const std::string& name, StreamId stream, FileOffset offset);
  void forget_stream(StreamId stream);

  /// The least position of all durable consumers that want the stream, connected or not; nothing when there is none.
  /// Nobody waits for what is before its base.
  std::optional<FileOffset> held_for(const wire::StreamInfo& stream) const;
  /// Up to where it is on the disks of all who are connected and want it; with nobody there, of somebody who was in
  /// this run. Nothing when there was nobody.
  std::optional<FileOffset> delivered_to(const wire::StreamInfo& stream) const;
  /// Whether a durable consumer is connected, of whom commits can come; whether one was in this run.
  bool anybody_connected() const;
  bool anybody_was_here() const;
  std::optional<FileOffset> position(const std::string& name, StreamId stream) const;

  const std::map<std::string, Consumer>& consumers() const { return consumers_; }

 private:
  std::map<std::string, Consumer> consumers_;
};

}  // namespace fantail
