#include "common/transport/control_link.h"

#include <algorithm>
#include <array>

#include "common/transport/connections.h"
#include "common/transport/waiter.h"
#include "common/transport/zmq_socket.h"

namespace fantail {
namespace {

constexpr std::size_t kMessagesPerTurn = 64;
constexpr std::size_t kMaxPeers = 4096;
constexpr Duration kGreetRetry = 20ms;
constexpr std::uint64_t kFlushNonce = UINT64_MAX;  // of no peer
constexpr Duration kTellSilence = 10s;
constexpr Duration kRenewConnection = 3s;  // with nobody there: see transport::Connections
constexpr Duration kForgetClient = 10min;  // one that only makes requests may compute between two of them

transport::SocketOptions socket_options(const ControlOptions& options) {
  return {.send_queue_messages = 256,
          .receive_queue_messages = 256,
          .max_message_bytes = static_cast<std::int64_t>(options.max_message_bytes)};
}

}  // namespace

struct ControlLink::Remote {
  PeerId id;
  std::string routing_id;                 ///< accepted peers
  std::unique_ptr<zmq::socket_t> dealer;  ///< peers that we connect to
  std::string address;                    ///< where to, or the name it gave
  bool up = false;
  bool only_asks = false;  ///< role kClient
  Duration probe_at{};     ///< of one that only asks: after so much silence
  InstanceId instance;
  PeerHealth health;
  MonoTime next_hello{};
  bool flushing = false;  ///< a Ping of flush() is not answered yet
  std::optional<MonoTime> down_since;
  bool unreachable = false;  ///< an accepted one whose connection has gone
  bool told_silent = false;  ///< that nobody answers, since it is down
  MonoTime renewed{};        ///< when its connection was made anew

  Remote(PeerId peer, HeartbeatTiming timing, MonoTime now) : id(peer), health(timing, now) {}
};

struct ControlLink::Sockets {
  std::optional<zmq::socket_t> router;
  std::optional<transport::RefusedHandshakes> refused;  ///< by the router
};

ControlLink::ControlLink(Context& context, wire::Peer self, ControlOptions options)
    : context_(context), self_(std::move(self)), options_(options), sockets_(std::make_unique<Sockets>()) {}

Result<std::unique_ptr<ControlLink>> ControlLink::open(Context& context, wire::Peer self, ControlOptions options) {
  return std::unique_ptr<ControlLink>(new ControlLink(context, std::move(self), options));
}

ControlLink::~ControlLink() {
  bool said = false;
  for (auto& [id, remote] : remotes_) {
    if (remote->up) said |= transmit(*remote, encoder_.bye({"shutting down"}), Frame());
    // The farewell may take this long to leave; without it the peer finds out by heartbeat.
    if (remote->dealer) remote->dealer->set(zmq::sockopt::linger, 200);
  }
  if (said && sockets_->router) sockets_->router->set(zmq::sockopt::linger, 200);
}

Result<std::string> ControlLink::bind(const Endpoint& endpoint) {
  if (!sockets_->router) {
    auto socket = transport::open_socket(context_, zmq::socket_type::router, socket_options(options_));
    if (!socket) return tl::unexpected(socket.error());
    socket->set(zmq::sockopt::router_mandatory, true);
    socket->set(zmq::sockopt::router_handover, true);
    if (options_.watch_refused_keys) {
      auto refused = transport::RefusedHandshakes::watch(*socket, context_);
      if (!refused) return tl::unexpected(refused.error());
      sockets_->refused = std::move(*refused);
    }
    sockets_->router = std::move(*socket);
  }
  auto address = transport::bind_socket(*sockets_->router, endpoint);
  if (!address) return fail(address.error().code, "control link: " + address.error().context);
  return address;
}

void ControlLink::count_refused_keys(MonoTime now) {
  if (!sockets_->refused) return;
  const std::uint64_t refused = sockets_->refused->take();
  if (refused == 0) return;
  counters_.refused_keys += refused;
  if (const auto n = refused_keys_log_.occurred(now)) {
    log::warn("refused connections: they have another key than this program, or one side has none",
              {{"refused", counters_.refused_keys}, {"count", *n}});
  }
}

Result<PeerId> ControlLink::connect(const std::string& address) {
  for (const PeerId id : dealers_) {
    if (remotes_.at(id)->address == address) return id;
  }
  auto socket = transport::open_socket(context_, zmq::socket_type::dealer, socket_options(options_));
  if (!socket) return tl::unexpected(socket.error());
  // The same name after a lost connection: the other side then goes on with the same session.
  socket->set(zmq::sockopt::routing_id, "F" + to_string(self_.instance) + std::to_string(next_peer_));
  socket->set(zmq::sockopt::immediate, true);
  if (auto ok = transport::connect_socket(*socket, address); !ok) return tl::unexpected(ok.error());
  const PeerId id{next_peer_++};
  auto remote = std::make_unique<Remote>(id, options_.timing, mono_now());
  remote->dealer = std::make_unique<zmq::socket_t>(std::move(*socket));
  remote->address = address;
  remotes_.emplace(id, std::move(remote));
  dealers_.insert(id);
  greet_now_ = true;
  return id;
}

void ControlLink::disconnect(PeerId peer) {
  const auto found = remotes_.find(peer);
  if (found == remotes_.end()) return;
  if (!found->second->dealer) by_routing_id_.erase(found->second->routing_id);
  remotes_.erase(found);
  dealers_.erase(peer);
}

bool ControlLink::transmit(Remote& remote, std::span<const std::byte> header, Frame payload) {
  zmq::socket_t* socket = remote.dealer.get();
  if (socket == nullptr) {
    socket = &*sockets_->router;
    Frame routing = Frame::copy_of(remote.routing_id);
    const auto result = transport::send_part(*socket, routing, true);
    if (result == transport::SendResult::kUnreachable) {
      remote.unreachable = true;
      next_beat_ = {};
    }
    if (result != transport::SendResult::kSent) return false;
  }
  Frame head = Frame::copy_of(header);
  if (transport::send_part(*socket, head, true) != transport::SendResult::kSent) return false;
  return transport::send_part(*socket, payload, false) == transport::SendResult::kSent;
}

bool ControlLink::send(PeerId peer, std::span<const std::byte> header, Frame payload) {
  const auto found = remotes_.find(peer);
  if (found == remotes_.end() || !found->second->up) return false;
  return transmit(*found->second, header, std::move(payload));
}

std::size_t ControlLink::turn(MonoTime now, ControlEvents& events) {
  std::size_t work = 0;
  if (sockets_->router) work += receive_from(nullptr, now, events);
  for (const PeerId id : std::vector(dealers_.begin(), dealers_.end())) {
    const auto found = remotes_.find(id);  // a handler may have disconnected it
    if (found != remotes_.end()) work += receive_from(found->second.get(), now, events);
  }
  beat(now, events);
  return work;
}

std::size_t ControlLink::receive_from(void* key, MonoTime now, ControlEvents& events) {
  auto* dealer = static_cast<Remote*>(key);
  const PeerId dealer_id = dealer == nullptr ? PeerId{} : dealer->id;
  std::size_t received = 0;
  for (; received < kMessagesPerTurn; ++received) {
    if (dealer != nullptr && !remotes_.contains(dealer_id)) break;
    zmq::socket_t& socket = dealer == nullptr ? *sockets_->router : *dealer->dealer;
    const std::size_t expected = dealer == nullptr ? 3 : 2;
    std::array<Frame, 3> parts;
    std::size_t count = 0;
    bool more = true;
    while (more) {
      Frame part;
      if (!transport::receive_part(socket, part, more)) break;
      if (count < expected) parts[count] = std::move(part);
      ++count;
    }
    if (count == 0) break;
    if (count != expected) {
      ++counters_.rejected;
      continue;
    }
    Frame payload = std::move(parts[count - 1]);
    Frame header = std::move(parts[count - 2]);
    if (dealer != nullptr) {
      handle(*dealer, std::move(header), std::move(payload), now, events);
      continue;
    }
    const std::string_view routing_id = parts[0].text();
    if (const auto known = by_routing_id_.find(routing_id); known != by_routing_id_.end()) {
      handle(*remotes_.at(known->second), std::move(header), std::move(payload), now, events);
      continue;
    }
    // A stranger stays a peer only if this was a good Hello, so that garbage costs no memory. It is entered first,
    // because whoever is told that it is up may want to send to it at once.
    const PeerId id{next_peer_++};
    auto entered = std::make_unique<Remote>(id, options_.timing, now);
    entered->routing_id = std::string(routing_id);
    entered->address = "unknown peer";
    Remote& stranger = *remotes_.emplace(id, std::move(entered)).first->second;
    by_routing_id_.emplace(std::string(routing_id), id);
    handle(stranger, std::move(header), std::move(payload), now, events);
    if (const auto found = remotes_.find(id); found != remotes_.end() && !found->second->up) disconnect(id);
  }
  return received;
}

void ControlLink::reject(const Error& error, std::string_view who, MonoTime now) {
  const bool version = error.code == ErrorCode::kUnsupported;
  ++(version ? counters_.refused_versions : counters_.rejected);
  if (const auto n = reject_log_.occurred(now)) {
    log::warn(version ? "refused a peer of another protocol version" : "rejected control messages",
              {{"peer", who}, {"error", error}, {"count", *n}});
  }
}

void ControlLink::handle(Remote& remote, Frame header, Frame payload, MonoTime now, ControlEvents& events) {
  const auto envelope = wire::open_envelope({}, header.bytes(), payload.bytes());
  if (!envelope) {
    reject(envelope.error(), remote.address, now);
    // An Error is never answered, or two versions would send each other refusals without end.
    const bool is_error = header.size() > 5 && header.bytes()[5] == static_cast<std::byte>(wire::Kind::kError);
    if (envelope.error().code == ErrorCode::kUnsupported && !is_error) {
      transmit(remote, encoder_.error({wire::ErrorKind::kVersion, envelope.error().context}), Frame());
    }
    return;
  }
  remote.health.heard(now);
  const auto body = envelope->body;
  switch (envelope->kind) {
    case wire::Kind::kHello:
    case wire::Kind::kWelcome: {
      const auto who = wire::decode_peer(body);
      if (!who) return reject(who.error(), remote.address, now);
      const bool hello = envelope->kind == wire::Kind::kHello;
      if (hello == (remote.dealer != nullptr)) return;  // connectors say Hello, acceptors Welcome
      if (hello && !remote.up && remotes_.size() > kMaxPeers) forget_idle_client(now, events);
      if (hello && !remote.up && remotes_.size() > kMaxPeers) {
        transmit(remote, encoder_.error({wire::ErrorKind::kRefused, "too many peers"}), Frame());
        return;
      }
      if (hello) transmit(remote, encoder_.welcome(self_), Frame());
      return come_up(remote, *who, now, events);
    }
    case wire::Kind::kPing: {
      const auto ping = wire::decode_ping(body);
      if (!ping) return reject(ping.error(), remote.address, now);
      if (remote.up) transmit(remote, encoder_.pong(*ping), Frame());
      break;
    }
    case wire::Kind::kPong: {
      const auto pong = wire::decode_ping(body);
      if (!pong) return reject(pong.error(), remote.address, now);
      if (pong->nonce == kFlushNonce) remote.flushing = false;
      break;
    }
    case wire::Kind::kBye: {
      const auto bye = wire::decode_bye(body);
      if (!bye) return reject(bye.error(), remote.address, now);
      if (remote.up) go_down(remote, "it said goodbye: " + bye->reason, events);
      return;
    }
    case wire::Kind::kError: {
      const auto error = wire::decode_error(body);
      if (!error) return reject(error.error(), remote.address, now);
      if (error->code == wire::ErrorKind::kHelloRequired) {
        if (remote.up) go_down(remote, "it does not know us any more", events);
        remote.next_hello = {};
        next_beat_ = {};
      } else if (const auto n = reject_log_.occurred(now)) {
        log::warn("a peer refused us", {{"peer", remote.address}, {"error", error->message}, {"count", *n}});
      }
      return;
    }
    default:
      if (remote.up) return events.on_control(remote.id, envelope->kind, body, std::move(payload));
      break;
  }
  if (!remote.up && remote.dealer == nullptr) {
    ++counters_.strangers;
    transmit(remote, encoder_.error({wire::ErrorKind::kHelloRequired, "say Hello first"}), Frame());
  }
}

void ControlLink::come_up(Remote& remote, const wire::Peer& who, MonoTime now, ControlEvents& events) {
  const bool welcome_again = remote.dealer != nullptr && remote.up && remote.instance == who.instance;
  if (welcome_again) return;  // the answer to a Hello that crossed the first answer
  if (remote.up) go_down(remote, "it greeted anew", events);
  remote.up = true;
  remote.told_silent = false;
  remote.down_since.reset();
  remote.instance = who.instance;
  remote.only_asks = remote.dealer == nullptr && who.role == wire::Role::kClient;
  remote.probe_at = options_.timing.interval * options_.timing.missed;
  if (remote.dealer == nullptr) remote.address = who.name;
  // The side with the many peers asks, all of them at one time: they would wake it up one by one.
  remote.health =
      PeerHealth(options_.timing, now, remote.dealer ? PeerHealth::Side::kSecond : PeerHealth::Side::kFirst);
  events.on_peer_up(remote.id, who);
}

/// Makes room for another peer: the client that has been silent for longest greets again when it wants something.
void ControlLink::forget_idle_client(MonoTime now, ControlEvents& events) {
  const Duration least = options_.timing.interval * (options_.timing.missed + 1);
  Remote* idle = nullptr;
  for (const auto& [id, remote] : remotes_) {
    if (!remote->up || !remote->only_asks || remote->health.silent_for(now) < least) continue;
    if (idle == nullptr || remote->health.silent_for(now) > idle->health.silent_for(now)) idle = remote.get();
  }
  if (idle == nullptr) return;
  go_down(*idle, "room is needed for others", events);
  disconnect(idle->id);
}

void ControlLink::go_down(Remote& remote, std::string_view reason, ControlEvents& events) {
  remote.up = false;
  remote.down_since.reset();
  events.on_peer_down(remote.id, reason);
}

bool ControlLink::flush(Duration limit, ControlEvents& events, Whom whom) {
  const MonoTime until = mono_now() + limit;
  for (auto& [id, remote] : remotes_) {
    const bool asked = remote->up && (whom == Whom::kClientsToo || !remote->only_asks);
    remote->flushing = asked && transmit(*remote, encoder_.ping({kFlushNonce}), Frame());
  }
  for (MonoTime now = mono_now();; now = mono_now()) {
    turn(now, events);
    const bool waiting =
        std::any_of(remotes_.begin(), remotes_.end(), [](const auto& r) { return r.second->up && r.second->flushing; });
    if (!waiting) return true;
    if (now >= until) return false;
    Waiter waiter;
    for (void* socket : native_sockets()) waiter.add_socket(socket);
    waiter.wait(std::min(until, due()) - now);
  }
}

void ControlLink::beat(MonoTime now, ControlEvents& events) {
  if (now < next_beat_ && !greet_now_) return;
  next_beat_ = now + options_.timing.interval / 4;
  count_refused_keys(now);
  std::vector<PeerId> gone;
  for (auto& [id, remote] : remotes_) {
    if (!remote->up) {
      if (remote->dealer == nullptr) {
        gone.push_back(id);
      } else if (greet_now_ || now >= remote->next_hello) {
        // Refused while the connection is not there yet: soon again.
        if (now - remote->down_since.emplace(remote->down_since.value_or(now)) >= kTellSilence &&
            !std::exchange(remote->told_silent, true)) {
          log::warn(
              "nobody answers, still trying; is the address right, something listening there, and its key the same as "
              "here?",
              {{"endpoint", remote->address}});
        }
        if (now - std::max(remote->renewed, *remote->down_since) >= kRenewConnection) {
          remote->renewed = now;
          if (const auto ok = transport::reconnect_socket(*remote->dealer, remote->address); !ok) {
            log::warn("cannot connect again", {{"endpoint", remote->address}, {"error", ok.error()}});
          }
        }
        const bool left = transmit(*remote, encoder_.hello(self_), Frame());
        remote->next_hello = left ? now + options_.timing.interval : now;
        if (!left) next_beat_ = std::min<MonoTime>(next_beat_, now + kGreetRetry);
      }
      continue;
    }
    if (remote->unreachable) {
      go_down(*remote, "its connection is gone", events);
      gone.push_back(id);
      continue;
    }
    if (remote->only_asks) {
      const Duration silent = remote->health.silent_for(now);
      if (silent >= kForgetClient) {
        go_down(*remote, "it asked nothing for a long time", events);
        gone.push_back(id);
      } else if (silent < options_.timing.interval) {
        remote->probe_at = options_.timing.interval * options_.timing.missed;
      } else if (silent >= remote->probe_at) {
        // An answer is not waited for, but that its connection is gone shows when something is sent. Ever more rarely:
        // who computes meanwhile finds them all in its queue.
        remote->probe_at = silent * 2;
        transmit(*remote, encoder_.ping({remote->id.raw}), Frame());
      }
      continue;
    }
    if (greet_now_ && remote->dealer != nullptr) transmit(*remote, encoder_.ping({remote->id.raw}), Frame());
    switch (remote->health.check(now)) {
      case PeerHealth::Verdict::kFine: break;
      case PeerHealth::Verdict::kPing: transmit(*remote, encoder_.ping({remote->id.raw}), Frame()); break;
      case PeerHealth::Verdict::kDead:
        go_down(*remote, "no sign of life", events);
        if (remote->dealer == nullptr) gone.push_back(id);
        break;
    }
  }
  greet_now_ = false;
  for (const PeerId id : gone) disconnect(id);
}

void ControlLink::was_away(MonoTime now) {
  for (auto& [id, remote] : remotes_) remote->health.was_not_listened_to(now);
}

void ControlLink::set_interval(Duration interval, MonoTime now) {
  if (interval == options_.timing.interval) return;
  options_.timing.interval = interval;
  for (auto& [id, remote] : remotes_) {
    remote->health.set_interval(interval, now);
    remote->next_hello = std::min<MonoTime>(remote->next_hello, now + interval);
  }
  next_beat_ = std::min<MonoTime>(next_beat_, now + interval / 4);
}

std::vector<void*> ControlLink::native_sockets() const {
  std::vector<void*> out;
  if (sockets_->router) out.push_back(sockets_->router->handle());
  for (const PeerId id : dealers_) out.push_back(remotes_.at(id)->dealer->handle());
  return out;
}

}  // namespace fantail
