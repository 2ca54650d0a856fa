// The part of StreamSubscriber that takes in what sources tell: greetings, listings, heads, answers to fetches.
#include <algorithm>

#include "common/stream/assembly.h"

namespace fantail {
namespace {

constexpr std::size_t kMaxRefused = 1'000'000;         // chunks of more are orphans for a while, each time
constexpr std::size_t kMaxStreamsPerNode = 4'000'000;  // only an attack has more

}  // namespace

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
    if (refused_.size() < kMaxRefused) refused_.emplace(info.stream, &node);
    return;
  }
  if (node.streams.size() >= kMaxStreamsPerNode) return;
  auto assembly = std::make_unique<Assembly>(info.stream, &node, budget_, config_.repair);
  Assembly& a = *assembly;
  streams_.emplace(info.stream, std::move(assembly));
  node.streams.push_back(info.stream);
  refused_.erase(info.stream);
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
  std::erase_if(refused_, [&](const auto& r) { return r.second == &node && !node.listed.contains(r.first); });
  node.listed.clear();
}

void StreamSubscriber::on_peer_up(PeerId peer, const wire::Peer& who) {
  if (who.role != wire::Role::kProducer || !who.node) return;
  auto& node = nodes_[who.node];
  if (!node) {
    node = std::make_unique<Node>();
    node->view = {who.node, who.name};
  }
  if (node->peer) part_from(*node);
  node->peer = peer;
  // It tells afresh how far its streams go: one that lost its memory may know of fewer than before.
  node->known_sequence = node->version = 0;
  peers_[peer] = node.get();
  log::info("producer connected", {{"node", who.name}, {"id", short_hex(who.node)}});
  request_list(*node, 0);
}

void StreamSubscriber::on_peer_down(PeerId peer, std::string_view reason) {
  Node* node = node_of(peer);
  if (node == nullptr) return;
  log::info("producer gone", {{"node", node->view.name}, {"reason", reason}});
  part_from(*node);
}

/// Forgets what was under way with the peer that this node was.
void StreamSubscriber::part_from(Node& node) {
  peers_.erase(*node.peer);
  node.peer.reset();
  node.listing = false;
  node.untold.clear();  // told with the next listing
  std::erase_if(refused_, [&](const auto& refused) { return refused.second == &node; });
  for (const StreamId id : node.streams) {
    GapDetector& detector = streams_.at(id)->detector;
    if (detector.in_flight()) settled(*detector.in_flight());
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
    settled(*a.detector.in_flight());
    a.detector.answered(now_, a.cursor > a.cursor_when_asked);
    suspects_.insert(a.id);
    next_repair_ = {};
  };
  switch (kind) {
    case wire::Kind::kStreams: {
      const auto m = wire::decode_streams(body);
      if (!m) return reject(m.error());
      const bool before_us = m->listing && node->first_listing;
      const bool more = m->listing && m->more && !m->streams.empty();
      // At once, so that the source makes the next page while this one is taken in.
      if (more) request_list(*node, m->streams.back().sequence);
      impatient_ = false;
      std::vector<const wire::StreamInfo*> fresh;
      for (const auto& info : m->streams) {
        if (!streams_.contains(info.stream) && config_.interest.wants(info)) fresh.push_back(&info);
      }
      if (fresh.size() > 1) receiver_.expect(node->view, fresh);
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
      if (m->listing && !more && node->listing) listing_complete(*node);
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

}  // namespace fantail
