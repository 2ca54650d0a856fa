#include "common/transport/zmq_socket.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "common/base/unique_fd.h"
#include "common/transport/endpoint.h"

namespace fantail::transport {
namespace {

constexpr std::int64_t kCurveBytes = 64;  // 33 in version 1

}  // namespace

Result<zmq::socket_t> open_socket(Context& context, zmq::socket_type type, const SocketOptions& options) {
  try {
    zmq::socket_t socket(*static_cast<zmq::context_t*>(context.native()), type);
    socket.set(zmq::sockopt::linger, 0);
    socket.set(zmq::sockopt::sndhwm, options.send_queue_messages);
    socket.set(zmq::sockopt::rcvhwm, options.receive_queue_messages);
    socket.set(zmq::sockopt::maxmsgsize, options.max_message_bytes);
    // With a key slower: libzmq takes the refusal of a key for an accident and comes back this soon, for ever.
    socket.set(zmq::sockopt::reconnect_ivl, context.key() ? 250 : 20);
    socket.set(zmq::sockopt::reconnect_ivl_max, 500);
    // A host that is gone: the kernel notices within some 4 s, whether something is on its way there or not. ZMTP
    // heartbeats would do it too, but libzmq 4.3.4 aborts in them (stream_engine_base.cpp, !_io_error) when our own
    // process was stopped for a few seconds with a full queue.
    socket.set(zmq::sockopt::tcp_maxrt, 4000);
    socket.set(zmq::sockopt::tcp_keepalive, 1);
    socket.set(zmq::sockopt::tcp_keepalive_idle, 2);
    socket.set(zmq::sockopt::tcp_keepalive_intvl, 1);
    socket.set(zmq::sockopt::tcp_keepalive_cnt, 3);
    if (const auto& key = context.key()) {
      // libzmq counts what CURVE adds to a frame: nonce, authenticator, flags.
      if (options.max_message_bytes > 0) socket.set(zmq::sockopt::maxmsgsize, options.max_message_bytes + kCurveBytes);
      socket.set(zmq::sockopt::curve_secretkey, key->secret_half());
      socket.set(zmq::sockopt::curve_publickey, key->public_half());
    }
    return socket;
  } catch (const zmq::error_t& e) {
    return fail_errno(e.num(), "opening a socket");
  }
}

namespace {

bool is_protected(const zmq::socket_t& socket) { return socket.get(zmq::sockopt::mechanism) == ZMQ_CURVE; }

/// Whether a process accepts connections at this path.
bool answers(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) return false;
  std::memcpy(address.sun_path, path.data(), path.size());
  // "@name" is the abstract name space.
  socklen_t length = sizeof(address);
  if (path[0] == '@') {
    address.sun_path[0] = '\0';
    length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  }
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0;
}

std::string addresses_of_this_host() {
  std::string out;
  for (const NetworkInterface& i : network_interfaces()) out += (out.empty() ? "" : ", ") + i.address;
  return out.empty() ? "none" : out;
}

}  // namespace

Result<std::string> bind_socket(zmq::socket_t& socket, const Endpoint& endpoint) {
  const std::string address = endpoint.to_string();
  const auto in_use = [&] {
    return fail(ErrorCode::kBusy, "cannot bind " + address +
                                      ": the address is in use (is another fantail running here?); choose another with "
                                      "--endpoint, --port or --control");
  };
  // libzmq takes the path of an ipc socket away from whoever has it.
  if (endpoint.scheme == Endpoint::Scheme::kIpc && answers(endpoint.host)) return in_use();
  try {
    if (is_protected(socket)) socket.set(zmq::sockopt::curve_server, true);
    socket.bind(address);
    return socket.get(zmq::sockopt::last_endpoint);
  } catch (const zmq::error_t& e) {
    switch (e.num()) {
      case EADDRINUSE: return in_use();
      // What the operator named cannot be had here, now or later.
      case EADDRNOTAVAIL:
      case ENODEV:
        return fail(ErrorCode::kInvalid, "cannot bind " + address +
                                             ": no interface of this host has that address; it has " +
                                             addresses_of_this_host() + ", and * stands for all of them");
      case EACCES:
        return fail(ErrorCode::kInvalid, "cannot bind " + address + ": not permitted; use a port from 1024 on, or a " +
                                             "directory that this user may write to");
      case ENOENT:
      case ENOTDIR:
        return fail(ErrorCode::kInvalid, "cannot bind " + address + ": its directory does not exist; make it first");
      default: return fail_errno(e.num(), "cannot bind " + address);
    }
  }
}

Status connect_socket(zmq::socket_t& socket, const std::string& address) {
  try {
    // The other side has the same pair.
    if (is_protected(socket)) {
      socket.set(zmq::sockopt::curve_serverkey, socket.get(zmq::sockopt::curve_publickey));
    }
    socket.connect(address);
    return {};
  } catch (const zmq::error_t& e) {
    return fail_errno(e.num(), "cannot connect to " + address);
  }
}

Result<RefusedHandshakes> RefusedHandshakes::watch(zmq::socket_t& socket, Context& context) {
  const std::string address =
      "inproc://handshakes-" + std::to_string(reinterpret_cast<std::uintptr_t>(socket.handle()));
  constexpr int kRefused =
      ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
  if (zmq_socket_monitor(socket.handle(), address.c_str(), kRefused) != 0) {
    return fail_errno(zmq_errno(), "watching for refused keys");
  }
  RefusedHandshakes out;
  out.watched_ = socket.handle();
  try {
    out.events_ = zmq::socket_t(*static_cast<zmq::context_t*>(context.native()), zmq::socket_type::pair);
    out.events_.set(zmq::sockopt::linger, 0);
    out.events_.set(zmq::sockopt::rcvhwm, 0);  // libzmq's I/O thread would wait where it is full
    out.events_.connect(address);
  } catch (const zmq::error_t& e) {
    return fail_errno(e.num(), "watching for refused keys");
  }
  return out;
}

RefusedHandshakes::RefusedHandshakes(RefusedHandshakes&& other) noexcept
    : watched_(std::exchange(other.watched_, nullptr)), events_(std::move(other.events_)) {}

RefusedHandshakes& RefusedHandshakes::operator=(RefusedHandshakes&& other) noexcept {
  if (this == &other) return *this;
  stop();
  watched_ = std::exchange(other.watched_, nullptr);
  events_ = std::move(other.events_);
  return *this;
}

RefusedHandshakes::~RefusedHandshakes() { stop(); }

void RefusedHandshakes::stop() {
  if (watched_ != nullptr) zmq_socket_monitor(std::exchange(watched_, nullptr), nullptr, 0);
}

std::uint64_t RefusedHandshakes::take(const Each& each) {
  std::uint64_t refused = 0;
  Frame frame;
  bool more = false;
  while (receive_part(events_, frame, more)) {  // two parts: the event, and the address that it happened at
    if (more) continue;
    ++refused;
    if (each) each(frame.text());
  }
  return refused;
}

SendResult send_part(zmq::socket_t& socket, Frame& frame, bool more) {
  for (;;) {
    const int flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0);
    if (zmq_msg_send(static_cast<zmq_msg_t*>(frame.native()), socket.handle(), flags) >= 0) return SendResult::kSent;
    switch (zmq_errno()) {
      case EINTR: continue;
      case EAGAIN: return SendResult::kBlocked;
      default: return SendResult::kUnreachable;
    }
  }
}

bool receive_part(zmq::socket_t& socket, Frame& frame, bool& more) {
  auto* message = static_cast<zmq_msg_t*>(frame.native());
  for (;;) {
    if (zmq_msg_recv(message, socket.handle(), ZMQ_DONTWAIT) >= 0) {
      more = zmq_msg_more(message) != 0;
      return true;
    }
    if (zmq_errno() != EINTR) return false;
  }
}

bool receive_message(zmq::socket_t& socket, BroadcastMessage& message, std::uint64_t& malformed) {
  for (;;) {
    bool more = false;
    if (!receive_part(socket, message.topic, more)) return false;
    std::size_t parts = 1;
    while (more) {
      Frame surplus;
      Frame& frame = parts == 1 ? message.header : parts == 2 ? message.payload : surplus;
      if (!receive_part(socket, frame, more)) break;
      ++parts;
    }
    if (parts == 3) return true;
    ++malformed;
  }
}

}  // namespace fantail::transport
