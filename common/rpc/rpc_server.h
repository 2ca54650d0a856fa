#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "common/base/log.h"
#include "common/transport/control_link.h"

namespace fantail::rpc {

/// Who is to get an answer. Stays valid for as long as the request is open; answers to one that is not are dropped.
struct Caller {
  PeerId peer;
  std::uint64_t request = 0;
  auto operator<=>(const Caller&) const = default;
};

struct RpcServerCounters {
  std::uint64_t requests = 0;
  std::uint64_t failures = 0;         ///< answers that say so
  std::uint64_t rejected = 0;         ///< messages that cannot be decoded
  std::uint64_t dropped_answers = 0;  ///< for want of room: the caller will time out
};

/// The answering half of the request layer: takes requests from control links and sends answers, each at once or later,
/// in as many parts as there are. Answers that a peer's queue does not take wait here, in a bounded number of bytes.
/// One thread.
class RpcServer {
 public:
  /// `arguments` borrows until return. May answer before it returns.
  using Handler = std::function<void(const Caller& caller, const wire::Request& request, std::string_view arguments)>;
  /// The caller waits no longer: it cancelled, or went away.
  using OnGone = std::function<void(const Caller& caller)>;

  /// `waiting_bytes`: of answers that wait for one peer's queue.
  RpcServer(ControlPort& control, Handler handler, std::size_t waiting_bytes = 16 * 1024 * 1024)
      : control_(control), handler_(std::move(handler)), waiting_bytes_(waiting_bytes) {}
  void on_gone(OnGone handler) { on_gone_ = std::move(handler); }

  /// The final answer.
  void reply(const Caller& caller, std::string_view result);
  void fail(const Caller& caller, std::string_view type, std::string_view message, std::string_view trace = {});
  /// One of several answers; a final one must follow. False: nothing was sent, this peer's queue is full; more room is
  /// told by has_room().
  bool partial(const Caller& caller, Frame result);
  /// The same for one that cannot be told to wait: kept until there is room, like final answers. False: there is no
  /// room to keep it either; the request has been failed.
  bool pass_on(const Caller& caller, std::string_view part);
  /// Whether partial() would take something.
  bool has_room(const Caller& caller) const;
  /// An unasked message. False: its queue is full, nothing was sent and no number used.
  bool emit(PeerId peer, const std::string& channel, std::string_view content);

  /// Whether this message is for the request layer; if so it was dealt with.
  bool on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, const Frame& payload);
  void on_peer_down(PeerId peer);
  /// Sends answers that had to wait; returns how many.
  std::size_t turn();
  bool idle() const { return blocked_.empty(); }

  const RpcServerCounters& counters() const { return counters_; }

 private:
  struct Answer {
    std::uint64_t request;
    std::uint32_t sequence;
    bool partial;
    std::optional<wire::Failure> failure;
    std::string result;
  };
  struct Peer {
    std::map<std::uint64_t, std::uint32_t> open;  ///< requests, with the sequence of their next answer
    std::map<std::string, std::uint64_t> events;  ///< sequence of the last one of each channel
    std::deque<Answer> waiting;
    std::size_t waiting_bytes = 0;
  };
  bool send_reply(PeerId peer, const wire::Reply& reply, Frame result);
  bool transmit(PeerId peer, const Answer& answer);
  void answer(const Caller& caller, std::string_view result, std::optional<wire::Failure> failure);
  void reject(const Error& error);

  ControlPort& control_;
  Handler handler_;
  OnGone on_gone_;
  std::size_t waiting_bytes_;
  wire::Encoder encoder_;
  std::map<PeerId, Peer> peers_;
  std::set<PeerId> blocked_;
  RpcServerCounters counters_;
  log::Repeated reject_log_;
};

}  // namespace fantail::rpc
