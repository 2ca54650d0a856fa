#include "common/stream/stream_subscriber.h"

#include <algorithm>

#include "common/stream/assembly.h"

namespace fantail {
namespace {

constexpr std::size_t kMessagesPerTurn = 256;
constexpr std::size_t kBytesPerTurn = 4 * 1024 * 1024;
constexpr Duration kRepairTick = 5ms;
constexpr std::size_t kLooksPerTick = 2048;  // at streams that may have a gap
constexpr Duration kOrphanLife = 10s;
constexpr Duration kForgetOrphansEvery = 1s;
constexpr std::size_t kOrphanBytes = 2 * kBytesPerTurn;  // listings are looked at once in a turn at least
constexpr Duration kListPatience = 100ms;                // of a chunk for a listing
constexpr Duration kListRetry = 2s;
constexpr Duration kMaxPostponed = 2s;  // of a queue that is never empty
constexpr std::size_t kCommitsPerMessage = 1024;

}  // namespace

StreamSubscriber::StreamSubscriber(SubscriberConfig config, BroadcastInlet& broadcast, ControlPort& control,
                                   StreamReceiver& receiver)
    : config_(std::move(config)),
      broadcast_(broadcast),
      control_(control),
      receiver_(receiver),
      budget_(config_.max_pending_bytes),
      orphan_budget_(std::min(config_.max_pending_bytes, kOrphanBytes)),
      random_(config_.random_seed != 0 ? config_.random_seed : random_id<InstanceId>().lo) {}
StreamSubscriber::~StreamSubscriber() = default;

void StreamSubscriber::reject(const Error& error) {
  ++(error.code == ErrorCode::kUnsupported ? counters_.refused_versions : counters_.rejected);
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
  if (held_back_) try_held_back();
  while (!held_back_ && messages < kMessagesPerTurn && bytes < kBytesPerTurn) {
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
    if (now >= next_forget_orphans_) forget_old_orphans(now);
  }
  return messages;
}

MonoTime StreamSubscriber::due(MonoTime now) const {
  const MonoTime at = suspects_.empty() ? now + 100ms : std::max(now, next_repair_);
  return held_back_ ? std::min(at, held_back_->since + kListPatience) : at;
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
  if (place(*chunk, message.payload)) return;
  if (impatient_) {
    ++counters_.dropped_no_room;
  } else {
    held_back_.emplace(HeldBack{{*chunk, std::move(message.payload)}, now_});
  }
}

/// False, and `payload` is as it was: its stream is not listed yet, and for such there is no room.
bool StreamSubscriber::place(const wire::Chunk& chunk, Frame& payload) {
  const auto found = streams_.find(chunk.stream);
  if (found == streams_.end()) return refused_.contains(chunk.stream) || take_orphan(chunk, payload);
  Assembly& assembly = *found->second;
  assembly.node->activity.broadcast = now_;
  assembly.node->activity.waiting_since.reset();
  if (!assembly.first_broadcast) assembly.first_broadcast = chunk.offset;
  assembly.passed = std::max(assembly.passed, chunk.offset);
  take_chunk(assembly, chunk, std::move(payload), false);
  if (gap_of(assembly).range.bytes() > 0) suspects_.insert(assembly.id);
  return true;
}

/// A chunk of a stream that was not listed yet, so it is not known whether it is wanted.
bool StreamSubscriber::take_orphan(const wire::Chunk& chunk, Frame& payload) {
  auto& orphans = orphans_[chunk.stream];
  if (!orphans) orphans = std::make_unique<Orphans>(Orphans{RangeBuffer(orphan_budget_), now_});
  if (orphans->pending.insert(chunk, std::move(payload)) != RangeBuffer::Kept::kNoRoom) return true;
  if (orphans->pending.empty()) orphans_.erase(chunk.stream);
  return false;
}

/// The queue of the broadcast keeps what comes behind it meanwhile. Thrown away, it would be found missing at the end,
/// and asked for after everything else.
void StreamSubscriber::try_held_back() {
  if (!place(held_back_->piece.chunk, held_back_->piece.payload)) {
    if (now_ - held_back_->since < kListPatience) return;
    impatient_ = true;
    ++counters_.dropped_no_room;
  }
  held_back_.reset();
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
  assembly.postponed.reset();
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

void StreamSubscriber::rewind(StreamId stream, FileOffset to) {
  const auto found = streams_.find(stream);
  if (found == streams_.end() || to >= found->second->cursor) return;
  Assembly& assembly = *found->second;
  if (const auto flight = assembly.detector.in_flight()) settled(*flight);
  assembly.detector.abandoned();
  assembly.passed = std::max(assembly.passed, assembly.cursor);
  assembly.cursor = to;
  assembly.sealed_told = false;
  assembly.first_broadcast.reset();  // what is asked for now is no fault of the wire
  heads_changed(assembly);
}

void StreamSubscriber::forget_old_orphans(MonoTime now) {
  next_forget_orphans_ = now + kForgetOrphansEvery;
  std::erase_if(orphans_, [&](const auto& entry) { return now - entry.second->since > kOrphanLife; });
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
  std::vector<Wanted> large;
  std::vector<Wanted> small;
  // When there are many, each tick goes on where the last one stopped.
  auto it = suspects_.size() <= kLooksPerTick ? suspects_.begin() : suspects_.upper_bound(last_suspect_);
  if (it == suspects_.end()) it = suspects_.begin();
  for (std::size_t looks = 0; looks < kLooksPerTick && it != suspects_.end(); ++looks) {
    last_suspect_ = *it;
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
          settled(*flight);
        }
        found->second->postponed.reset();
        detector.due(gap, now, 0);
      }
      it = suspects_.erase(it);
      continue;
    }
    ++it;
    if (const auto wanted = look_at(*found->second, gap, now)) {
      (is_small(wanted->range) ? small : large).push_back(*wanted);
    }
  }
  // Part of the room is for small gaps alone, so that they do not wait for whole histories, and they get no more of it
  // while a large one waits.
  const std::uint64_t for_small = config_.max_fetch_bytes / 4;
  const bool all_asked = ask_in_turn(large, last_large_, config_.max_fetch_bytes - for_small, now);
  ask_in_turn(small, last_small_, all_asked ? config_.max_fetch_bytes : for_small, now);
}

bool StreamSubscriber::is_small(ByteRange range) const { return range.bytes() <= config_.max_fetch_bytes / 64; }

/// What to ask for now to close the gap, if it is time.
std::optional<StreamSubscriber::Wanted> StreamSubscriber::look_at(Assembly& assembly, const Gap& gap, MonoTime now) {
  if (!assembly.node->peer || assembly.blocked) return std::nullopt;
  // What only a head tells of may be in our own queue still.
  if (gap.passed || caught_up_) {
    assembly.postponed.reset();
  } else if (now - assembly.postponed.emplace(assembly.postponed.value_or(now)) < kMaxPostponed) {
    assembly.detector.progressed(now);
  }
  const auto before = assembly.detector.in_flight();
  const auto range = assembly.detector.due(gap, now, std::uniform_real_distribution<double>(0, 1)(random_));
  if (before && !assembly.detector.in_flight()) settled(*before);
  if (!range) return std::nullopt;
  return Wanted{&assembly, *range};
}

/// Asks for as much as there is room, beginning behind the stream that was asked for last. `limit`: in flight, of this
/// size. Returns whether there was room for all. `wanted` is in order of id.
bool StreamSubscriber::ask_in_turn(std::vector<Wanted>& wanted, StreamId& last, std::uint64_t limit, MonoTime now) {
  const auto next = std::find_if(wanted.begin(), wanted.end(), [&](const Wanted& w) { return w.assembly->id > last; });
  std::rotate(wanted.begin(), next, wanted.end());
  for (const auto& [assembly, range] : wanted) {
    std::uint64_t& in_flight = in_flight_for(range);
    const std::uint64_t all = large_in_flight_ + small_in_flight_;
    const bool fits = in_flight + range.bytes() <= limit && all + range.bytes() <= config_.max_fetch_bytes;
    if (!fits && all > 0) return false;
    const bool lost = assembly->first_broadcast && range.from >= *assembly->first_broadcast;
    const std::uint64_t request = next_request_++;
    if (!control_.send(*assembly->node->peer, encoder_.fetch({request, assembly->id, range, lost}))) continue;
    assembly->detector.asked(request, range, now);
    assembly->cursor_when_asked = assembly->cursor;
    in_flight += range.bytes();
    last = assembly->id;
    ++counters_.fetches;
  }
  return true;
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

std::optional<StreamSubscriber::StreamView> StreamSubscriber::view(StreamId stream) const {
  const auto found = streams_.find(stream);
  if (found == streams_.end()) return std::nullopt;
  const Assembly& assembly = *found->second;
  return StreamView{assembly.cursor, assembly.head, assembly.sealed, assembly.node->peer.has_value()};
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
