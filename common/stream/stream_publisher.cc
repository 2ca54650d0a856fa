#include "common/stream/stream_publisher.h"

#include <algorithm>

#include "common/base/log.h"
#include "common/stream/streams_page.h"

namespace fantail {
namespace {

constexpr std::size_t kHeadsPerMessage = 1024;
constexpr Duration kFirstBeacons = 10ms;       // apart, doubling
constexpr Duration kHeadsStayInBeacons = 10s;  // later, control links have long told them

}  // namespace

StreamPublisher::StreamPublisher(PublisherConfig config, BroadcastPort& broadcast, ControlPort& control,
                                 FramePool& pool, CommitLedger& ledger, PublisherEvents& events)
    : config_(std::move(config)),
      broadcast_(broadcast),
      control_(control),
      ledger_(ledger),
      events_(events),
      broadcaster_(config_.broadcast, streams_, broadcast, pool,
                   {.wanted = [this](const PublishedStream& s) { return wanted(s); },
                    // On multicast all consumers share one queue: nobody there can be slower than the others.
                    .receivers = [this] { return config_.multicast ? 1 : sessions_.size(); },
                    .sent =
                        [this](PublishedStream& s) {
                          changed(s);
                          events_.on_sent(s.info);
                        },
                    .broken = [this](PublishedStream& s, const Error& e) { events_.on_broken(s.info.stream, e); }}),
      fetches_(config_.broadcast.chunk_bytes, streams_, control,
               {.broken = [this](PublishedStream& s, const Error& e) { events_.on_broken(s.info.stream, e); },
                .to_payload =
                    [this](wire::Chunk& chunk, FramePool::Buffer&& raw, FramePool& of_peer) {
                      return broadcaster_.to_payload(chunk, std::move(raw), broadcaster_.compressing(), of_peer);
                    }}) {}

bool StreamPublisher::wanted(const PublishedStream& stream) const {
  if (!config_.multicast) return broadcast_.wanted(wire::chunk_topic_frame(stream.info.topic));
  return std::any_of(sessions_.begin(), sessions_.end(),
                     [&](const auto& entry) { return entry.second.interest.wants(stream.info); });
}

void StreamPublisher::changed(const PublishedStream& stream) {
  ++changes_;
  recent_[stream.info.stream] = now_;
  for (auto& [peer, session] : sessions_) session.moved.insert(stream.info.stream);
}

void StreamPublisher::add(const wire::StreamInfo& info, StreamSource* source, wire::LossReason gone) {
  PublishedStream& stream = streams_.add(info, source);
  stream.gone = gone;
  ++changes_;
  if (!held_) {  // else it is listed
    for (auto& [peer, session] : sessions_) session.unannounced.insert(info.stream);
    unannounced_ = true;
  }
  broadcaster_.enqueue(stream);
}

void StreamPublisher::advance(StreamId id, FileOffset head) {
  PublishedStream* stream = streams_.find(id);
  if (stream == nullptr || head <= stream->info.head || stream->info.sealed) return;
  stream->info.head = head;
  if (!config_.broadcast_backlog && !wanted(*stream)) stream->info.sent = head;
  changed(*stream);
  broadcaster_.enqueue(*stream);
}

void StreamPublisher::readable(StreamId id) {
  if (PublishedStream* stream = streams_.find(id)) broadcaster_.enqueue(*stream);
}

void StreamPublisher::seal(StreamId id, FileOffset final_length, std::optional<wire::LossReason> gone) {
  PublishedStream* stream = streams_.find(id);
  if (stream == nullptr) return;
  stream->info.sealed = true;
  stream->info.head = std::max(final_length, stream->info.sent);
  if (gone) {
    stream->source = nullptr;
    stream->gone = *gone;
    // What was never sent can only be asked for, and the answer will be that it is lost.
    stream->info.sent = stream->info.head;
  }
  changed(*stream);
  broadcaster_.enqueue(*stream);
  next_news_ = {};
}

void StreamPublisher::cut_off(StreamId id, wire::LossReason reason) {
  PublishedStream* stream = streams_.find(id);
  if (stream == nullptr) return;
  if (!stream->info.sealed) stream->info.head = stream->info.sent + 1;
  stream->info.sealed = true;
  stream->info.sent = stream->info.head;
  stream->lost_from = FileOffset{stream->info.head.raw - 1};
  stream->gone = reason;
  changed(*stream);
  next_news_ = {};
}

void StreamPublisher::rewind(StreamId id, FileOffset to) {
  PublishedStream* stream = streams_.find(id);
  if (stream == nullptr || stream->source == nullptr || to >= stream->info.sent) return;
  broadcaster_.forget(id);  // a chunk of it that is read and waits for the wire is behind the new position
  stream->queued = stream->parked = false;
  stream->info.sent = std::max(to, stream->info.base);
  changed(*stream);
  broadcaster_.enqueue(*stream);
}

void StreamPublisher::remove(StreamId id) {
  broadcaster_.forget(id);
  recent_.erase(id);
  for (auto& [peer, session] : sessions_) {
    session.unannounced.erase(id);
    // The last that is told of it: that it is sealed, and where.
    if (session.moved.erase(id) > 0) control_.send(peer, encoder_.beacon(beacon_of({id}), {}));
  }
  ledger_.forget_stream(id);
  streams_.remove(id);
}

const wire::StreamInfo* StreamPublisher::info(StreamId id) const {
  const PublishedStream* stream = streams_.find(id);
  return stream == nullptr ? nullptr : &stream->info;
}

bool StreamPublisher::wanted(StreamId id) const {
  const PublishedStream* stream = streams_.find(id);
  return stream != nullptr && wanted(*stream);
}

void StreamPublisher::identify(StreamId id, const wire::FileIdentity& file) {
  PublishedStream* stream = streams_.find(id);
  if (stream == nullptr || stream->info.file == file) return;
  stream->info.file = file;
  // With the next heads; no hurry.
  for (auto& [peer, session] : sessions_) session.unannounced.insert(id);
}

void StreamPublisher::release() {
  held_ = false;
  for (auto& [peer, session] : sessions_) {
    if (const auto after = std::exchange(session.list_after, std::nullopt)) send_page(peer, *after);
  }
}

std::size_t StreamPublisher::turn(MonoTime now) {
  now_ = now;
  const bool heads_due = now >= next_news_;
  if (heads_due || unannounced_) {
    unannounced_ = false;
    for (auto& [peer, session] : sessions_) send_news(peer, session, heads_due);
    if (heads_due) next_news_ = now + config_.news_interval;
  }
  if (now >= next_beacon_) send_beacon(now);
  return broadcaster_.turn(now) + fetches_.turn(now);
}

bool StreamPublisher::everybody_knows() const {
  return std::all_of(sessions_.begin(), sessions_.end(),
                     [](const auto& s) { return s.second.moved.empty() && s.second.unannounced.empty(); });
}

MonoTime StreamPublisher::due(MonoTime now) {
  MonoTime at = next_beacon_;
  if (!fetches_.idle()) at = std::min(at, now + 1ms);
  if (!everybody_knows()) at = std::min(at, next_news_);
  if (const auto next = broadcaster_.due(now)) at = std::min(at, *next);
  return at;
}

wire::Beacon StreamPublisher::beacon_of(const std::set<StreamId>& heads) const {
  wire::Beacon beacon{config_.node, config_.instance, config_.name, config_.control, streams_.version(), {}};
  for (const StreamId id : heads) {
    if (const PublishedStream* s = streams_.find(id)) {
      beacon.heads.push_back({id, s->info.sent, s->info.head, s->info.sealed});
    }
  }
  return beacon;
}

void StreamPublisher::send_beacon(MonoTime now) {
  // Until somebody is there, beacons are what lets consumers find us: soon after a start, and less often as time goes
  // by.
  lonely_interval_ = sessions_.empty() ? std::clamp(lonely_interval_ * 2, kFirstBeacons, config_.beacon_interval / 4)
                                       : Duration::zero();
  next_beacon_ = now + (sessions_.empty() ? lonely_interval_ : config_.beacon_interval);
  std::set<StreamId> heads;
  for (auto it = recent_.begin(); it != recent_.end();) {
    const PublishedStream* stream = streams_.find(it->first);
    const auto committed = stream == nullptr ? std::nullopt : ledger_.held_for(stream->info);
    // Who has committed all bytes may still not know that these are all.
    const bool settled = committed && *committed >= stream->info.head && !stream->info.sealed;
    const bool done = stream == nullptr || now - it->second > kHeadsStayInBeacons || settled;
    if (done) {
      it = recent_.erase(it);
      continue;
    }
    if (heads.size() < kHeadsPerMessage) heads.insert(it->first);
    ++it;
  }
  const std::string topic = wire::beacon_topic_frame(config_.node);
  BroadcastMessage message{Frame::copy_of(topic), Frame::copy_of(encoder_.beacon(beacon_of(heads), topic)), Frame()};
  // Best effort: with a queue full the next one will do.
  broadcast_.send(message, BroadcastPort::WhenFull::kSkipThatReceiver);
}

void StreamPublisher::send_news(PeerId peer, Session& session, bool heads_too) {
  while (!session.unannounced.empty()) {
    StreamsPage news;
    auto it = session.unannounced.begin();
    for (; it != session.unannounced.end() && news.has_room(); ++it) {
      if (const PublishedStream* s = streams_.find(*it)) news.add(s->info);
    }
    if (!control_.send(peer, encoder_.streams(news.message()))) return;  // its queue is full: later
    session.unannounced.erase(session.unannounced.begin(), it);
  }
  while (heads_too && !session.moved.empty()) {
    auto end = session.moved.begin();
    for (std::size_t n = 0; n < kHeadsPerMessage && end != session.moved.end(); ++n) ++end;
    const std::set<StreamId> some(session.moved.begin(), end);
    if (!control_.send(peer, encoder_.beacon(beacon_of(some), {}))) return;
    session.moved.erase(session.moved.begin(), end);
  }
}

void StreamPublisher::send_page(PeerId peer, std::uint64_t after) {
  StreamsPage page(true);
  const auto& all = streams_.by_sequence();
  auto it = all.upper_bound(after);
  for (; it != all.end() && page.has_room(); ++it) {
    page.add(it->second->info);
    sessions_.at(peer).unannounced.erase(it->second->info.stream);
  }
  control_.send(
      peer, encoder_.streams(page.message(it != all.end())));  // if it does not get through, the consumer asks again
}

void StreamPublisher::on_peer_up(PeerId peer, const wire::Peer& who) {
  if (who.role != wire::Role::kConsumer) return;
  Session session;
  session.who = who;
  session.interest = {who.topics, who.shard_index, who.shard_count};
  if (!who.durable_name.empty()) {
    ledger_.seen(who.durable_name, session.interest, wall_now(), true);
    events_.on_consumer(who.durable_name, session.interest);
  }
  sessions_[peer] = std::move(session);
  events_.on_consumer_up(peer, who);
  log::info("consumer connected", {{"peer", who.name}, {"durable", who.durable_name}});
  broadcaster_.unpark();
}

void StreamPublisher::on_peer_down(PeerId peer, std::string_view reason) {
  const auto found = sessions_.find(peer);
  if (found == sessions_.end()) return;
  log::info("consumer gone", {{"peer", found->second.who.name}, {"reason", reason}});
  const std::string name = std::move(found->second.who.durable_name);
  fetches_.forget(peer);
  sessions_.erase(found);
  // One that was killed and started again is here already when its old link is given up.
  const bool here =
      std::any_of(sessions_.begin(), sessions_.end(), [&](const auto& s) { return s.second.who.durable_name == name; });
  if (!here) ledger_.disconnected(name, wall_now());
  events_.on_consumer_down(peer);
}

void StreamPublisher::on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame) {
  const auto session = sessions_.find(peer);
  if (session == sessions_.end()) return;
  const auto rejected = [&](const Error& error) {
    if (const auto n = reject_log_.occurred(mono_now())) {
      log::warn("rejected a request", {{"peer", session->second.who.name}, {"error", error}, {"count", *n}});
    }
  };
  switch (kind) {
    case wire::Kind::kList: {
      const auto m = wire::decode_list(body);
      if (!m) return rejected(m.error());
      if (!held_) return send_page(peer, m->after);
      session->second.list_after = m->after;
      return;
    }
    case wire::Kind::kFetch: {
      const auto m = wire::decode_fetch(body);
      if (!m) return rejected(m.error());
      if (held_) {
        control_.send(peer, encoder_.fetch_end({m->request, m->stream, m->range.from}));  // later
        return;
      }
      if (m->lost) broadcaster_.reported_loss(now_);
      return fetches_.add(peer, *m);
    }
    case wire::Kind::kCommit: {
      const auto m = wire::decode_commit(body);
      if (!m) return rejected(m.error());
      const std::string& name = session->second.who.durable_name;
      if (name.empty()) return;  // only durable consumers can promise anything
      for (const auto& entry : m->entries) {
        const PublishedStream* stream = streams_.find(entry.stream);
        if (stream == nullptr) continue;
        // A consumer may have more than a source that restarted with old positions knows of.
        const FileOffset offset = std::min(entry.offset, stream->info.head);
        if (ledger_.commit(name, entry.stream, offset)) events_.on_commit(name, entry.stream, offset);
      }
      return;
    }
    case wire::Kind::kStreams: {
      const auto m = wire::decode_streams(body);
      return m ? events_.on_known(peer, *m) : rejected(m.error());
    }
    default: ++unknown_kinds_; return;  // of a newer minor version
  }
}

}  // namespace fantail
