#include "common/stream/stream_subscriber.h"

#include <algorithm>

namespace fantail {
namespace {

constexpr std::size_t kMessagesPerTurn = 256;
constexpr std::size_t kBytesPerTurn = 4 * 1024 * 1024;
constexpr Duration kRepairTick = 5ms;
constexpr Duration kOrphanLife = 10s;
constexpr Duration kListRetry = 2s;
constexpr std::size_t kCommitsPerMessage = 1024;
constexpr std::size_t kMaxStreamsPerNode = 4'000'000;  // only an attack has more

}  // namespace

/// A producer node, connected or not.
struct StreamSubscriber::Node {
  NodeView view;
  std::optional<PeerId> peer;
  std::uint64_t known_sequence = 0;  ///< everything up to here was told of
  std::uint64_t version = 0;         ///< the greatest that the node announced
  std::uint64_t list_covers = 0;     ///< the version when the List under way was asked for
  bool listing_all = false;          ///< that one began at 0
  std::set<StreamId> listed;         ///< by it, so far
  bool first_listing = true;         ///< of this run: what it tells existed before us
  bool listing = false;              ///< a List is under way
  std::uint64_t list_after = 0;
  MonoTime list_asked{};
  std::vector<StreamId> streams;
  NodeActivity activity;
  std::set<StreamId> untold;  ///< committed, and the node has not been told
};

/// One stream being put together.
struct StreamSubscriber::Assembly {
  StreamId id;
  Node* node;
  FileOffset cursor;  ///< everything below was delivered or is lost
  FileOffset sent;    ///< the source says: broadcast up to here
  FileOffset head;    ///< the source says: exists up to here
  FileOffset passed;  ///< proven to be behind the broadcast: nothing below will come by itself
  FileOffset committed;
  bool sealed = false;
  bool sealed_told = false;
  bool blocked = false;                       ///< the receiver takes nothing of it now
  std::optional<FileOffset> first_broadcast;  ///< where the broadcast was joined
  RangeBuffer pending;
  GapDetector detector;
  FileOffset cursor_when_asked;

  Assembly(StreamId stream, Node* owner, PendingBudget& budget, const RepairTiming& timing)
      : id(stream), node(owner), pending(budget), detector(timing) {}
};

struct StreamSubscriber::Orphans {
  RangeBuffer pending;
  MonoTime since;
};

StreamSubscriber::StreamSubscriber(SubscriberConfig config, BroadcastInlet& broadcast, ControlPort& control,
                                   StreamReceiver& receiver)
    : config_(std::move(config)),
      broadcast_(broadcast),
      control_(control),
      receiver_(receiver),
      budget_(config_.max_pending_bytes),
      random_(config_.random_seed != 0 ? config_.random_seed : random_id<InstanceId>().lo) {}
StreamSubscriber::~StreamSubscriber() = default;

void StreamSubscriber::reject(const Error& error) {
  ++counters_.rejected;
  if (const auto n = reject_log_.occurred(now_)) log::warn("rejected messages", {{"error", error}, {"count", *n}});
}

StreamSubscriber::Node* StreamSubscriber::node_of(PeerId peer) {
  const auto found = peers_.find(peer);
  return found == peers_.end() ? nullptr : found->second;
}

// ---- receiving

std::size_t StreamSubscriber::turn(MonoTime now) {
  now_ = now;
  std::size_t messages = 0;
  std::size_t bytes = 0;
  BroadcastMessage message;
  caught_up_ = false;
  while (messages < kMessagesPerTurn && bytes < kBytesPerTurn) {
    if (!broadcast_.receive(message)) {
      caught_up_ = true;
      break;
    }
    ++messages;
    bytes += message.payload.size();
    take_broadcast(message);
  }
  if (now >= next_repair_) {
    next_repair_ = now + kRepairTick;
    repair(now);
    forget_old_orphans(now);
  }
  return messages;
}

MonoTime StreamSubscriber::due(MonoTime now) const {
  return suspects_.empty() ? now + 100ms : std::max(now, next_repair_);
}

void StreamSubscriber::take_broadcast(BroadcastMessage& message) {
  const auto envelope = wire::open_envelope(message.topic.text(), message.header.bytes(), message.payload.bytes());
  if (!envelope) return reject(envelope.error());
  if (envelope->kind == wire::Kind::kBeacon) {
    const auto beacon = wire::decode_beacon(envelope->body);
    if (!beacon) return reject(beacon.error());
    const auto node = nodes_.find(beacon->node);
    take_beacon(*beacon, node == nodes_.end() ? nullptr : node->second.get(), true);
    return receiver_.on_beacon(*beacon);
  }
  if (envelope->kind != wire::Kind::kChunk) {
    ++counters_.unknown_kinds;  // of a newer minor version
    return;
  }
  const auto chunk = wire::decode_chunk(envelope->body, message.payload.bytes());
  if (!chunk) return reject(chunk.error());
  ++counters_.chunks_received;
  const auto found = streams_.find(chunk->stream);
  if (found != streams_.end()) {
    Assembly& assembly = *found->second;
    assembly.node->activity.broadcast = now_;
    assembly.node->activity.waiting_since.reset();
    if (!assembly.first_broadcast) assembly.first_broadcast = chunk->offset;
    assembly.passed = std::max(assembly.passed, chunk->offset);
    take_chunk(assembly, *chunk, std::move(message.payload), false);
    if (gap_of(assembly).range.bytes() > 0) suspects_.insert(assembly.id);
    return;
  }
  auto& orphans = orphans_[chunk->stream];
  if (!orphans) orphans = std::make_unique<Orphans>(Orphans{RangeBuffer(budget_), now_});
  if (orphans->pending.insert(*chunk, std::move(message.payload)) == RangeBuffer::Kept::kNoRoom) {
    ++counters_.dropped_no_room;
    if (orphans->pending.empty()) orphans_.erase(chunk->stream);
  }
}

void StreamSubscriber::take_chunk(Assembly& assembly, const wire::Chunk& chunk, Frame&& payload, bool fetched) {
  assembly.head = std::max(assembly.head, chunk.end());
  if (chunk.sealed) {
    assembly.sealed = true;
    assembly.head = chunk.end();
  }
  if (chunk.end() <= assembly.cursor) {
    counters_.duplicate_bytes += chunk.raw_length;
    return check_sealed(assembly);
  }
  const bool next = chunk.offset <= assembly.cursor && !assembly.blocked;
  if (next && deliver(assembly, chunk, payload, fetched) == StreamReceiver::Delivery::kTaken) return drain(assembly);
  if (assembly.pending.insert(chunk, std::move(payload)) == RangeBuffer::Kept::kNoRoom) {
    ++counters_.dropped_no_room;
    // What was thrown away will not come again by itself.
    assembly.passed = std::max(assembly.passed, chunk.end());
  }
}

/// Hands over the part of the chunk at and behind the cursor.
StreamReceiver::Delivery StreamSubscriber::deliver(Assembly& assembly, const wire::Chunk& chunk, const Frame& payload,
                                                   bool fetched) {
  using Delivery = StreamReceiver::Delivery;
  const auto raw = decompressor_.raw(chunk, payload.bytes());
  if (!raw) {
    reject(raw.error());
    assembly.passed = std::max(assembly.passed, chunk.end());
    return Delivery::kTaken;  // the cursor stays: the range is a gap
  }
  const std::uint64_t known = assembly.cursor - chunk.offset;
  const auto fresh = raw->subspan(static_cast<std::size_t>(known));
  if (receiver_.on_data(assembly.id, assembly.cursor, fresh, chunk.read_time) == Delivery::kBlocked) {
    assembly.blocked = true;
    blocked_.insert(assembly.id);
    return Delivery::kBlocked;
  }
  counters_.bytes_delivered += fresh.size();
  counters_.duplicate_bytes += known;
  if (fetched) counters_.bytes_fetched += fresh.size();
  assembly.cursor = chunk.end();
  assembly.detector.progressed(now_);
  return Delivery::kTaken;
}

void StreamSubscriber::drain(Assembly& assembly) {
  while (!assembly.blocked) {
    auto piece = assembly.pending.take_at(assembly.cursor);
    if (!piece) break;
    if (deliver(assembly, piece->chunk, piece->payload, false) == StreamReceiver::Delivery::kBlocked) {
      assembly.pending.insert(piece->chunk, std::move(piece->payload));
    }
  }
  check_sealed(assembly);
}

void StreamSubscriber::check_sealed(Assembly& assembly) {
  if (!assembly.sealed || assembly.sealed_told || assembly.cursor < assembly.head) return;
  assembly.sealed_told = true;
  receiver_.on_sealed(assembly.id, assembly.head);
}

void StreamSubscriber::resume() {
  for (const StreamId id : std::exchange(blocked_, {})) {
    Assembly& assembly = *streams_.at(id);
    assembly.blocked = false;
    drain(assembly);
    heads_changed(assembly);
  }
}

void StreamSubscriber::forget_old_orphans(MonoTime now) {
  std::erase_if(orphans_, [&](const auto& entry) { return now - entry.second->since > kOrphanLife; });
}

// ---- what sources tell

void StreamSubscriber::learn(Node& node, const wire::StreamInfo& info, bool news, bool listed) {
  // News may be lost on the way: a hole before it is asked for with the next beacon.
  if (listed || info.sequence == node.known_sequence + 1)
    node.known_sequence = std::max(node.known_sequence, info.sequence);
  const auto found = streams_.find(info.stream);
  if (found != streams_.end()) {
    Assembly& assembly = *found->second;
    if (assembly.node != &node) return;  // somebody else's stream: not for this peer to speak of
    receiver_.on_info(node.view, info);
    learn_head({info.stream, info.sent, info.head, info.sealed}, &node, false);
    return;
  }
  if (!config_.interest.wants(info)) {
    orphans_.erase(info.stream);
    return;
  }
  if (node.streams.size() >= kMaxStreamsPerNode) return;
  auto assembly = std::make_unique<Assembly>(info.stream, &node, budget_, config_.repair);
  Assembly& a = *assembly;
  streams_.emplace(info.stream, std::move(assembly));
  node.streams.push_back(info.stream);
  const auto start = receiver_.on_stream(node.view, info, news);
  a.cursor = std::max(start.cursor, info.base);
  a.committed = start.committed;
  if (const auto waiting = orphans_.extract(info.stream); !waiting.empty()) {
    while (const auto first = waiting.mapped()->pending.first()) {
      auto piece = waiting.mapped()->pending.take_at(*first);
      if (!piece) break;
      a.passed = std::max(a.passed, piece->chunk.offset);
      take_chunk(a, piece->chunk, std::move(piece->payload), false);
    }
  }
  learn_head({info.stream, info.sent, info.head, info.sealed}, &node, false);
}

void StreamSubscriber::learn_head(const wire::Head& head, Node* from, bool may_be_late) {
  const auto found = streams_.find(head.stream);
  if (found == streams_.end() || found->second->node != from) return;
  Assembly& assembly = *found->second;
  if (head.sent > assembly.sent && head.sent > std::max(assembly.cursor, assembly.passed)) {
    from->activity.sent_moved = now_;
    if (!from->activity.waiting_since) from->activity.waiting_since = now_;
  }
  assembly.sent = std::max(assembly.sent, head.sent);
  if (head.sealed) {
    assembly.sealed = true;
    assembly.head = head.head;
  } else if (!assembly.sealed || (!may_be_late && head.head > assembly.head)) {
    // A batch producer seals what it has read; a later run may find that the file went on.
    assembly.sealed = assembly.sealed_told = false;
    assembly.head = std::max(assembly.head, head.head);
  }
  heads_changed(assembly);
}

void StreamSubscriber::heads_changed(Assembly& assembly) {
  check_sealed(assembly);
  if (!gap_of(assembly).range.empty()) suspects_.insert(assembly.id);
}

void StreamSubscriber::take_beacon(const wire::Beacon& beacon, Node* from, bool may_be_late) {
  if (from == nullptr || from->view.id != beacon.node) return;
  for (const auto& head : beacon.heads) learn_head(head, from, may_be_late);
  from->version = std::max(from->version, beacon.registry_version);
  if (from->peer && !from->listing && beacon.registry_version > from->known_sequence) {
    request_list(*from, from->known_sequence);
  }
}

void StreamSubscriber::request_list(Node& node, std::uint64_t after) {
  if (!node.listing) {
    node.list_covers = node.version;
    node.listing_all = after == 0;
    node.listed.clear();
  }
  node.listing = true;
  node.list_after = after;
  node.list_asked = now_;
  if (node.peer) control_.send(*node.peer, encoder_.list({after}));  // lost or refused: asked again by repair()
}

/// What is not listed any more is finished: its source has nothing beyond what it sent.
void StreamSubscriber::listing_complete(Node& node) {
  node.listing = false;
  node.first_listing = false;
  node.known_sequence = std::max(node.known_sequence, node.list_covers);
  if (!node.listing_all) return;
  for (const StreamId id : node.streams) {
    Assembly& assembly = *streams_.at(id);
    if (!node.listed.contains(id)) assembly.head = std::max({assembly.cursor, assembly.sent, assembly.passed});
  }
  node.listed.clear();
}

void StreamSubscriber::on_peer_up(PeerId peer, const wire::Peer& who) {
  if (who.role != wire::Role::kProducer || !who.node) return;
  auto& node = nodes_[who.node];
  if (!node) {
    node = std::make_unique<Node>();
    node->view = {who.node, who.name};
  }
  if (node->peer) peers_.erase(*node->peer);
  node->peer = peer;
  // It tells afresh how far its streams go: one that lost its memory may know of fewer than before.
  node->listing = false;
  node->known_sequence = node->version = 0;
  peers_[peer] = node.get();
  log::info("producer connected", {{"node", who.name}, {"id", short_hex(who.node)}});
  request_list(*node, 0);
}

void StreamSubscriber::on_peer_down(PeerId peer, std::string_view reason) {
  Node* node = node_of(peer);
  if (node == nullptr) return;
  log::info("producer gone", {{"node", node->view.name}, {"reason", reason}});
  node->peer.reset();
  node->listing = false;
  node->untold.clear();  // told with the next listing
  peers_.erase(peer);
  for (const StreamId id : node->streams) {
    GapDetector& detector = streams_.at(id)->detector;
    if (detector.in_flight()) in_flight_bytes_ -= detector.in_flight()->range.bytes();
    detector.abandoned();
  }
}

void StreamSubscriber::on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) {
  Node* node = node_of(peer);
  if (node == nullptr) return;
  // Answers are taken only by the stream that asked, from the node that it asked.
  const auto asked = [&](StreamId stream, std::uint64_t request) -> Assembly* {
    const auto found = streams_.find(stream);
    if (found == streams_.end() || found->second->node != node) return nullptr;
    const auto& flight = found->second->detector.in_flight();
    return flight && flight->request == request ? found->second.get() : nullptr;
  };
  const auto finish = [&](Assembly& a) {
    in_flight_bytes_ -= a.detector.in_flight()->range.bytes();
    a.detector.answered(now_, a.cursor > a.cursor_when_asked);
    suspects_.insert(a.id);
    next_repair_ = {};
  };
  switch (kind) {
    case wire::Kind::kStreams: {
      const auto m = wire::decode_streams(body);
      if (!m) return reject(m.error());
      const bool before_us = m->listing && node->first_listing;
      for (const auto& info : m->streams) {
        learn(*node, info, !before_us, m->listing);
        if (node->listing_all) node->listed.insert(info.stream);
        const auto found = streams_.find(info.stream);
        if (config_.durable && found != streams_.end() && found->second->node == node &&
            found->second->committed.raw > 0) {
          node->untold.insert(info.stream);
        }
      }
      tell_commits(*node);
      if (!m->listing) return;
      if (m->more && !m->streams.empty()) return request_list(*node, m->streams.back().sequence);
      if (node->listing) listing_complete(*node);
      return;
    }
    case wire::Kind::kList: {
      const auto m = wire::decode_list(body);
      if (!m) return reject(m.error());
      StreamsPage page(true);
      const auto more = receiver_.tell_known(node->view, m->after, page);
      // Without an answer the source asks again.
      if (more) control_.send(peer, encoder_.streams(page.message(*more)));
      return;
    }
    case wire::Kind::kBeacon: {
      const auto m = wire::decode_beacon(body);
      return m ? take_beacon(*m, node, false) : reject(m.error());
    }
    case wire::Kind::kFetchData: {
      const auto m = wire::decode_fetch_data(body, payload.bytes());
      if (!m) return reject(m.error());
      Assembly* a = asked(m->chunk.stream, m->request);
      if (a == nullptr) return;  // an answer that was given up
      a->detector.heard(now_);
      return take_chunk(*a, m->chunk, std::move(payload), true);
    }
    case wire::Kind::kFetchEnd: {
      const auto m = wire::decode_fetch_end(body);
      if (!m) return reject(m.error());
      if (Assembly* a = asked(m->stream, m->request)) finish(*a);
      return;
    }
    case wire::Kind::kUnavailable: {
      const auto m = wire::decode_unavailable(body);
      if (!m) return reject(m.error());
      Assembly* a = asked(m->stream, m->request);
      if (a == nullptr) return;
      const ByteRange requested = a->detector.in_flight()->range;
      finish(*a);
      if (m->range.from <= a->cursor && !a->blocked) lose(*a, std::min(m->range.to, requested.to), m->reason);
      return;
    }
    default: ++counters_.unknown_kinds; return;  // of a newer minor version
  }
}

/// The front of the stream up to `to`, or up to what is pending, is gone for good.
void StreamSubscriber::lose(Assembly& assembly, FileOffset to, wire::LossReason reason) {
  if (const auto first = assembly.pending.first()) to = std::min(to, *first);
  if (to <= assembly.cursor) return drain(assembly);
  const ByteRange range{assembly.cursor, to};
  counters_.lost_bytes += range.bytes();
  log::error("bytes are lost", {{"stream", assembly.id},
                                {"node", assembly.node->view.name},
                                {"from", range.from},
                                {"to", range.to},
                                {"reason", wire::to_string(reason)}});
  receiver_.on_loss(assembly.id, range, reason);
  assembly.cursor = to;
  assembly.detector.progressed(now_);
  drain(assembly);
}

// ---- repair

Gap StreamSubscriber::gap_of(const Assembly& assembly) const {
  const FileOffset cursor = assembly.cursor;
  if (const auto first = assembly.pending.first(); first && *first <= cursor)
    return {};  // deliverable; the receiver is blocked
  const auto until_pending = [&](FileOffset to) {
    const auto first = assembly.pending.first();
    return ByteRange{cursor, first ? std::min(to, *first) : to};
  };
  if (assembly.passed > cursor) return {until_pending(assembly.passed), true};
  return {until_pending(assembly.sent), false};
}

void StreamSubscriber::repair(MonoTime now) {
  for (auto& [id, node] : nodes_) {
    if (node->peer && node->listing && now - node->list_asked > kListRetry) request_list(*node, node->list_after);
    tell_commits(*node);
  }
  std::uniform_real_distribution<double> uniform(0, 1);
  for (auto it = suspects_.begin(); it != suspects_.end();) {
    const auto found = streams_.find(*it);
    const Gap gap = found == streams_.end() ? Gap{} : gap_of(*found->second);
    if (gap.range.empty()) {
      if (found != streams_.end()) {
        GapDetector& detector = found->second->detector;
        if (const auto flight = detector.in_flight()) {
          // The gap has closed by itself, but the request counts until it is answered or given up.
          if (!detector.expired(now)) {
            ++it;
            continue;
          }
          in_flight_bytes_ -= flight->range.bytes();
        }
        detector.due(gap, now, 0);
      }
      it = suspects_.erase(it);
      continue;
    }
    Assembly& assembly = *found->second;
    ++it;
    if (!assembly.node->peer || assembly.blocked) continue;
    // What only a head tells of may be in our own queue still.
    if (!gap.passed && !caught_up_) assembly.detector.progressed(now);
    const auto before = assembly.detector.in_flight();
    const auto range = assembly.detector.due(gap, now, uniform(random_));
    if (before && !assembly.detector.in_flight()) in_flight_bytes_ -= before->range.bytes();
    if (!range) continue;
    if (in_flight_bytes_ > 0 && in_flight_bytes_ + range->bytes() > config_.max_fetch_bytes) continue;
    const bool lost = assembly.first_broadcast && range->from >= *assembly.first_broadcast;
    const std::uint64_t request = next_request_++;
    if (!control_.send(*assembly.node->peer, encoder_.fetch({request, assembly.id, *range, lost}))) continue;
    assembly.detector.asked(request, *range, now);
    assembly.cursor_when_asked = assembly.cursor;
    in_flight_bytes_ += range->bytes();
    ++counters_.fetches;
  }
}

// ---- commits and overview

void StreamSubscriber::commit(const std::vector<wire::CommitEntry>& entries) {
  for (const auto& entry : entries) {
    const auto found = streams_.find(entry.stream);
    if (found == streams_.end()) continue;
    Assembly& assembly = *found->second;
    assembly.committed = std::max(assembly.committed, entry.offset);
    if (config_.durable && assembly.node->peer) assembly.node->untold.insert(entry.stream);
  }
  for (auto& [id, node] : nodes_) tell_commits(*node);
}

void StreamSubscriber::tell_commits(Node& node) {
  while (node.peer && !node.untold.empty()) {
    wire::Commit commit;
    auto it = node.untold.begin();
    for (; it != node.untold.end() && commit.entries.size() < kCommitsPerMessage; ++it) {
      commit.entries.push_back({*it, streams_.at(*it)->committed});
    }
    if (!control_.send(*node.peer, encoder_.commit(commit))) return;  // its queue is full: later
    node.untold.erase(node.untold.begin(), it);
  }
}

StreamSubscriber::Overview StreamSubscriber::overview() const {
  Overview out;
  out.settled = !streams_.empty();
  for (const auto& [id, node] : nodes_) {
    if (node->peer) ++out.nodes;
    if (node->listing) out.settled = false;
  }
  out.streams = streams_.size();
  for (const auto& [id, a] : streams_) {
    if (a->head > a->cursor) out.behind_bytes += a->head - a->cursor;
  }
  if (out.behind_bytes > 0) out.settled = false;
  return out;
}

std::map<NodeId, StreamSubscriber::NodeActivity> StreamSubscriber::activity() const {
  std::map<NodeId, NodeActivity> out;
  for (const auto& [id, node] : nodes_) out[id] = node->activity;
  return out;
}

}  // namespace fantail
