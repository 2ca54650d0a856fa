#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/result.h"
#include "common/transport/context.h"
#include "common/transport/endpoint.h"
#include "common/transport/frame.h"
#include "common/transport/peer_health.h"
#include "common/wire/codec.h"

namespace fantail {

/// A peer of this run of this process; never reused.
struct PeerId {
  std::uint64_t raw = 0;
  auto operator<=>(const PeerId&) const = default;
};

/// Where control messages go out. Sending never waits.
class ControlPort {
 public:
  virtual ~ControlPort() = default;
  /// `header` is an encoded header frame. False: the peer's queue is full or it is gone; nothing was sent.
  virtual bool send(PeerId peer, std::span<const std::byte> header, Frame payload) = 0;
  bool send(PeerId peer, std::span<const std::byte> header) { return send(peer, header, Frame()); }
};

/// What a control link tells its owner. Called from turn() only.
class ControlEvents {
 public:
  virtual ~ControlEvents() = default;
  /// Greetings were exchanged. A peer that comes up again after it was down has a new view of us: begin afresh.
  virtual void on_peer_up(PeerId peer, const wire::Peer& who) = 0;
  virtual void on_peer_down(PeerId peer, std::string_view reason) = 0;
  /// A message with a good envelope and a kind that the link does not handle itself. `body` borrows until return.
  virtual void on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) = 0;
};

struct ControlOptions {
  HeartbeatTiming timing;
  std::size_t max_message_bytes = 2 * 1024 * 1024;  ///< of one frame; a peer that sends more is disconnected
  bool watch_refused_keys = true;                   ///< counts and tells connections that end before a greeting
};

struct ControlCounters {
  std::uint64_t rejected = 0;          ///< not decodable: damaged, hostile or foreign
  std::uint64_t refused_versions = 0;  ///< another protocol major
  std::uint64_t strangers = 0;         ///< well-formed, but no Hello before
  std::uint64_t refused_keys = 0;      ///< connections with another key than ours, or where one side has none
};

/// Unicast links to peers: greetings (Hello/Welcome), heartbeats and routing. Accepts on any number of bound addresses
/// (one ROUTER) and connects to any number (DEALER). An accepted peer of role kClient owes no sign of life,
/// but is given up when its connection is gone, which is noticed after some seconds of silence. Queues to a
/// peer are bounded in messages; those with payload are bounded by the fetch window on top. One thread.
class ControlLink final : public ControlPort {
 public:
  static Result<std::unique_ptr<ControlLink>> open(Context& context, wire::Peer self, ControlOptions options = {});
  /// Says Bye to everybody.
  ~ControlLink() override;

  Result<std::string> bind(const Endpoint& endpoint);  ///< the address really bound
  /// Keeps trying until disconnected. The same address twice is one peer.
  Result<PeerId> connect(const std::string& address);
  void disconnect(PeerId peer);

  using ControlPort::send;
  bool send(PeerId peer, std::span<const std::byte> header, Frame payload) override;

  /// Something else showed that a peer is there, perhaps a new run of it: greets those that are not up and pings those
  /// that are, now instead of at the next interval. One that was started anew answers that it does not know us.
  void greet_now() { greet_now_ = true; }

  /// Of heartbeats, from now on. Longer where nothing is lost when the end of a peer is noticed late.
  void set_interval(Duration interval, MonoTime now);

  /// turn() was not called for a while, and something that peers have still matters: they are asked once more before
  /// they are given up for their silence. Who has nothing with them greets anew instead: they may have forgotten us.
  void was_away(MonoTime now);

  /// Receives a bounded number of messages and keeps the heartbeat. Returns how much it did.
  std::size_t turn(MonoTime now, ControlEvents& events);
  /// Who is waited for: clients that only make requests may compute between two of them and answer nobody meanwhile.
  enum class Whom : std::uint8_t { kPeers, kClientsToo };
  /// Before the end: waits until everybody who is up has received what was sent to them, which a Pong that comes behind
  /// it shows, at most `limit`. What the other side has not taken out of its libzmq when the connection is closed is
  /// lost, although it has arrived there: with ZMQ_IMMEDIATE the connecting side throws its queue away. False: not
  /// everybody has.
  bool flush(Duration limit, ControlEvents& events, Whom whom = Whom::kPeers);
  /// When to call turn() again although no socket is ready.
  MonoTime due() const { return greet_now_ ? MonoTime{} : next_beat_; }

  const ControlCounters& counters() const { return counters_; }
  std::vector<void*> native_sockets() const;  ///< changes with bind, connect and disconnect

 private:
  struct Remote;
  struct Sockets;
  ControlLink(Context& context, wire::Peer self, ControlOptions options);
  std::size_t receive_from(void* socket_key, MonoTime now, ControlEvents& events);
  void handle(Remote& remote, Frame header, Frame payload, MonoTime now, ControlEvents& events);
  void reject(const Error& error, std::string_view who, MonoTime now);
  void come_up(Remote& remote, const wire::Peer& who, MonoTime now, ControlEvents& events);
  void go_down(Remote& remote, std::string_view reason, ControlEvents& events);
  void beat(MonoTime now, ControlEvents& events);
  void count_refused_keys(MonoTime now);
  void forget_idle_client(MonoTime now, ControlEvents& events);
  bool transmit(Remote& remote, std::span<const std::byte> header, Frame payload);

  Context& context_;
  wire::Peer self_;
  ControlOptions options_;
  std::unique_ptr<Sockets> sockets_;
  std::map<PeerId, std::unique_ptr<Remote>> remotes_;
  std::set<PeerId> dealers_;  ///< those among them that we connect to; the others may be many
  std::map<std::string, PeerId, std::less<>> by_routing_id_;
  wire::Encoder encoder_;
  ControlCounters counters_;
  log::Repeated reject_log_;
  log::Repeated refused_keys_log_;
  std::uint64_t next_peer_ = 1;
  MonoTime next_beat_{};
  bool greet_now_ = false;
};

}  // namespace fantail
