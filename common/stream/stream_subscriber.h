#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "common/base/log.h"
#include "common/stream/commit_ledger.h"
#include "common/stream/gap_detector.h"
#include "common/stream/range_buffer.h"
#include "common/stream/streams_page.h"
#include "common/transport/broadcast.h"
#include "common/transport/control_link.h"
#include "common/wire/codec.h"
#include "common/wire/compression.h"

namespace fantail {

struct SubscriberConfig {
  Interest interest;
  bool durable = false;  ///< commits are worth telling
  RepairTiming repair;
  std::size_t max_pending_bytes = 64 * 1024 * 1024;  ///< of all streams, waiting for something earlier
  std::size_t max_fetch_bytes = 16 * 1024 * 1024;    ///< asked for and not yet answered, of all streams
  std::uint64_t random_seed = 0;                     ///< of the repair jitter; 0: from the kernel
};

struct NodeView {
  NodeId id;
  std::string name;
};

/// Who gets the bytes of the streams. Called from turn() and the control handlers, in stream order for each stream.
class StreamReceiver {
 public:
  virtual ~StreamReceiver() = default;

  struct Start {
    FileOffset cursor;     ///< deliver from here
    FileOffset committed;  ///< safe on disk already: told to the source again
  };
  /// These are about to come with on_stream(), one after the other: what costs as much for many as for one can be done
  /// now. Pointers are good during the call.
  virtual void expect(const NodeView& node, std::span<const wire::StreamInfo* const> streams) {
    (void)node, (void)streams;
  }
  /// A stream is listed for the first time in this run. `news`: it came to be while this consumer was connected.
  virtual Start on_stream(const NodeView& node, const wire::StreamInfo& info, bool news) = 0;

  enum class Delivery : std::uint8_t {
    kTaken,
    kBlocked,  ///< nothing was taken; this stream waits until resume()
  };
  virtual Delivery on_data(StreamId stream, FileOffset offset, std::span<const std::byte> bytes,
                           WallTime read_time) = 0;
  /// No one can supply `range` any more. Delivery goes on behind it.
  virtual void on_loss(StreamId stream, ByteRange range, wire::LossReason reason) = 0;
  /// Everything up to the final length was delivered.
  virtual void on_sealed(StreamId stream, FileOffset final_length) = 0;
  /// The source tells again of a stream: its file's beginning may have grown, it may go on after it was sealed.
  virtual void on_info(const NodeView& node, const wire::StreamInfo& info) { (void)node, (void)info; }
  /// A source asks what this consumer keeps of its streams, because it lost its own memory of them: adds to `page`, in
  /// order of sequence, those behind `after` as long as there is room. Returns whether there are more; nothing when it
  /// cannot tell now.
  virtual std::optional<bool> tell_known(const NodeView& node, std::uint64_t after, StreamsPage& page) {
    (void)node, (void)after, (void)page;
    return false;
  }
  /// Heard by broadcast; for transports where this is how one learns where the control link is.
  virtual void on_beacon(const wire::Beacon& beacon) = 0;
};

struct SubscriberCounters {
  std::uint64_t chunks_received = 0;
  std::uint64_t bytes_delivered = 0;
  std::uint64_t bytes_fetched = 0;  ///< of those delivered, brought by fetch
  std::uint64_t duplicate_bytes = 0;
  std::uint64_t dropped_no_room = 0;   ///< chunks; fetched later
  std::uint64_t rejected = 0;          ///< damaged, hostile or foreign messages
  std::uint64_t refused_versions = 0;  ///< broadcast in another protocol major
  std::uint64_t unknown_kinds = 0;
  std::uint64_t fetches = 0;
  std::uint64_t lost_bytes = 0;
};

/// The consumer's half of the stream engine: takes broadcasts and fetches, delivers every stream in order and without
/// duplicate, sees what is missing and asks its source for exactly that. One thread; drive it with turn().
class StreamSubscriber final : public ControlEvents {
 public:
  StreamSubscriber(SubscriberConfig config, BroadcastInlet& broadcast, ControlPort& control, StreamReceiver& receiver);
  ~StreamSubscriber() override;

  /// Receives and repairs a bounded piece; returns how much. Never waits.
  std::size_t turn(MonoTime now);
  MonoTime due(MonoTime now) const;

  /// After kBlocked: the receiver may take bytes again.
  void resume();

  /// What was delivered from `to` on is wanted again: it was lost on this side.
  void rewind(StreamId stream, FileOffset to);

  /// These positions are safe on disk: told to the sources that are connected, and to the others when they are.
  void commit(const std::vector<wire::CommitEntry>& entries);

  /// Whether the last turn took all broadcasts that were there.
  bool caught_up() const { return caught_up_; }
  /// Nothing more is taken from the broadcast for a moment, until control links bring a listing: no use to wait for it.
  bool holds_back() const { return held_back_.has_value(); }
  struct Overview {
    std::size_t nodes = 0;  ///< connected
    std::size_t streams = 0;
    std::uint64_t behind_bytes = 0;
    bool settled = false;  ///< something was listed, every listing is complete and nothing known is outstanding
  };
  Overview overview() const;
  struct StreamView {
    FileOffset cursor;  ///< everything below was delivered or is lost
    FileOffset head;    ///< the source says: exists up to here
    bool sealed = false;
    bool connected = false;  ///< to its source
  };
  /// Nothing: not listed in this run.
  std::optional<StreamView> view(StreamId stream) const;
  const SubscriberCounters& counters() const { return counters_; }
  /// What tells a multicast that has stopped from one that has nothing to bring.
  struct NodeActivity {
    std::optional<MonoTime> broadcast;      ///< when data of this node last arrived by it
    std::optional<MonoTime> sent_moved;     ///< when the node last told of sending something that is not here
    std::optional<MonoTime> waiting_since;  ///< when it first told of it since `broadcast`
  };
  std::map<NodeId, NodeActivity> activity() const;

  void on_peer_up(PeerId peer, const wire::Peer& who) override;
  void on_peer_down(PeerId peer, std::string_view reason) override;
  void on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) override;

 private:
  struct Node;
  struct Assembly;

  void take_broadcast(BroadcastMessage& message);
  bool place(const wire::Chunk& chunk, Frame& payload);
  bool take_orphan(const wire::Chunk& chunk, Frame& payload);
  void try_held_back();
  void take_chunk(Assembly& assembly, const wire::Chunk& chunk, Frame&& payload, bool fetched);
  StreamReceiver::Delivery deliver(Assembly& assembly, const wire::Chunk& chunk, const Frame& payload, bool fetched);
  void drain(Assembly& assembly);
  void learn(Node& node, const wire::StreamInfo& info, bool news, bool listed);
  void listing_complete(Node& node);
  /// `may_be_late`: by broadcast, so something newer may have overtaken it.
  void learn_head(const wire::Head& head, Node* from, bool may_be_late);
  void heads_changed(Assembly& assembly);
  void check_sealed(Assembly& assembly);
  void lose(Assembly& assembly, FileOffset to, wire::LossReason reason);
  Gap gap_of(const Assembly& assembly) const;
  void part_from(Node& node);
  void request_list(Node& node, std::uint64_t after);
  void tell_commits(Node& node);
  void repair(MonoTime now);
  /// A fetch that is due.
  struct Wanted {
    Assembly* assembly;
    ByteRange range;
  };
  bool is_small(ByteRange range) const;
  std::uint64_t& in_flight_for(ByteRange range) { return is_small(range) ? small_in_flight_ : large_in_flight_; }
  void settled(const GapDetector::Flight& flight) { in_flight_for(flight.range) -= flight.range.bytes(); }
  std::optional<Wanted> look_at(Assembly& assembly, const Gap& gap, MonoTime now);
  bool ask_in_turn(std::vector<Wanted>& wanted, StreamId& last, std::uint64_t limit, MonoTime now);
  void forget_old_orphans(MonoTime now);
  void reject(const Error& error);
  Node* node_of(PeerId peer);
  void take_beacon(const wire::Beacon& beacon, Node* from, bool may_be_late);

  SubscriberConfig config_;
  BroadcastInlet& broadcast_;
  ControlPort& control_;
  StreamReceiver& receiver_;
  PendingBudget budget_;
  PendingBudget orphan_budget_;
  wire::Encoder encoder_;
  wire::ChunkDecompressor decompressor_;
  std::map<NodeId, std::unique_ptr<Node>> nodes_;
  std::map<PeerId, Node*> peers_;
  std::unordered_map<StreamId, std::unique_ptr<Assembly>> streams_;
  struct Orphans;
  std::unordered_map<StreamId, std::unique_ptr<Orphans>> orphans_;  ///< chunks of streams not listed yet
  struct HeldBack {
    RangeBuffer::Piece piece;
    MonoTime since;
  };
  std::optional<HeldBack> held_back_;  ///< one for which there is no room until its stream is listed
  bool impatient_ = false;             ///< what has no room is thrown away until the next listing: the last was late
  std::unordered_map<StreamId, Node*> refused_;  ///< listed streams that nobody here wants
  std::set<StreamId> suspects_;                  ///< streams that may have a gap
  SubscriberCounters counters_;
  std::mt19937_64 random_;
  std::uint64_t next_request_ = 1;
  std::uint64_t large_in_flight_ = 0;  ///< bytes asked for and not yet answered
  std::uint64_t small_in_flight_ = 0;
  StreamId last_large_;  ///< asked for last: the next turn is of the stream behind it
  StreamId last_small_;
  StreamId last_suspect_;       ///< looked at last
  std::set<StreamId> blocked_;  ///< streams whose receiver takes nothing now
  bool caught_up_ = false;      ///< the last turn left nothing in the broadcast's queue
  MonoTime now_{};
  MonoTime next_repair_{};
  MonoTime next_forget_orphans_{};
  log::Repeated reject_log_;
};

}  // namespace fantail
