#pragma once

// Internal to common/transport: the one header that shows libzmq to our classes.
#include <functional>
#include <string>
#include <string_view>
#include <zmq.hpp>

#include "common/base/result.h"
#include "common/transport/broadcast.h"
#include "common/transport/context.h"
#include "common/transport/endpoint.h"
#include "common/transport/frame.h"

namespace fantail::transport {

/// Settings that all our sockets share: never linger (durability is the engine's business), bounded message size, quick
/// reconnects, and a connection to a host that is gone is given up and its queue freed.
struct SocketOptions {
  int send_queue_messages = 64;
  int receive_queue_messages = 64;
  std::int64_t max_message_bytes = 2 * 1024 * 1024;
};

Result<zmq::socket_t> open_socket(Context& context, zmq::socket_type type, const SocketOptions& options);

/// Binds and returns the address really bound. kBusy when the port is taken, with the flags that change it.
Result<std::string> bind_socket(zmq::socket_t& socket, const Endpoint& endpoint);
Status connect_socket(zmq::socket_t& socket, const std::string& address);

/// Connections of a socket whose greeting failed: the other side has another key, or one of both has none. libzmq tells
/// of them on a socket of its own. Must be destroyed before the one that is watched, and stops the watch then: libzmq
/// 4.3.4 leaks an event that it cannot send while its context ends (socket_base.cpp, monitor_event).
class RefusedHandshakes {
 public:
  RefusedHandshakes() = default;
  RefusedHandshakes(RefusedHandshakes&& other) noexcept;
  RefusedHandshakes& operator=(RefusedHandshakes&& other) noexcept;
  ~RefusedHandshakes();
  static Result<RefusedHandshakes> watch(zmq::socket_t& socket, Context& context);
  using Each = std::function<void(std::string_view address)>;
  /// How many since the last call, and where each was: our own address where we bind, theirs where we connect. Never
  /// waits.
  std::uint64_t take(const Each& each = {});

 private:
  void stop();

  void* watched_ = nullptr;
  zmq::socket_t events_;
};

enum class SendResult { kSent, kBlocked, kUnreachable };

/// Sends one part without waiting. The frame is emptied only when it was sent.
SendResult send_part(zmq::socket_t& socket, Frame& frame, bool more);

/// Receives one part without waiting; false when there is none. `more` tells whether the message goes on.
bool receive_part(zmq::socket_t& socket, Frame& frame, bool& more);

/// Receives one data message without waiting; those that do not have three parts are dropped and counted.
bool receive_message(zmq::socket_t& socket, BroadcastMessage& message, std::uint64_t& malformed);

}  // namespace fantail::transport
