// fantail-epgm-relay: the process in which the epgm sockets of one fantail program live. Started by RelayProcess only.
//
//   fantail-epgm-relay send    IPC EPGM RATE_KBIT WINDOW_MS
//   fantail-epgm-relay receive IPC EPGM RATE_KBIT WINDOW_MS TPDU PREFIX...
//
// It moves whole messages between an ipc socket and a multicast one and decides nothing: no pacing, no repair, no
// memory.

#include <malloc.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>
#include <zmq.hpp>

namespace {

constexpr int kQueueMessages = 64;

/// Moves one message whose first part is in `part`. Blocks until it is taken.
void forward(zmq::socket_t& from, zmq::socket_t& to, zmq::message_t& part) {
  for (;;) {
    const bool more = part.more();
    while (!to.send(part, more ? zmq::send_flags::sndmore : zmq::send_flags::none)) {
    }
    if (!more || !from.recv(part)) return;
  }
}

/// Keeps what may wait in `socket` near kQueueBytes, whatever the size of messages: libzmq counts messages only.
class ByteBound {
 public:
  explicit ByteBound(zmq::socket_t& socket) : socket_(socket) { socket_.set(zmq::sockopt::sndhwm, messages_); }

  void sent(std::size_t bytes) {
    mean_ += (static_cast<double>(bytes) - mean_) / 16;
    const int fitting = std::clamp(static_cast<int>(kQueueBytes / std::max(mean_, 1.0)), kQueueMessages, 16 * 1024);
    if (fitting > messages_ / 2 && fitting < messages_ * 2) return;
    messages_ = fitting;
    socket_.set(zmq::sockopt::sndhwm, messages_);
  }

 private:
  static constexpr double kQueueBytes = 16 * 1024 * 1024;
  zmq::socket_t& socket_;
  double mean_ = kQueueBytes / kQueueMessages;
  int messages_ = kQueueMessages;
};

/// The same, but drops the message when there is no room: the receiver of multicast must never stand still.
void forward_or_drop(zmq::socket_t& from, zmq::socket_t& to, ByteBound& bound, zmq::message_t& part) {
  bool first = true;
  bool dropping = false;
  std::size_t bytes = 0;
  for (;;) {
    const bool more = part.more();
    bytes += part.size();
    if (!dropping) {
      const auto flags = (more ? zmq::send_flags::sndmore : zmq::send_flags::none) | zmq::send_flags::dontwait;
      if (!to.send(part, flags)) dropping = first;  // libzmq refuses at the first part or not at all
    }
    first = false;
    if (!more || !from.recv(part)) break;
  }
  bound.sent(bytes);
}

int send_side(const std::vector<std::string>& arguments) {
  zmq::context_t ipc_context(1);
  zmq::context_t epgm_context(1);
  zmq::socket_t in(ipc_context, zmq::socket_type::pull);
  in.set(zmq::sockopt::rcvhwm, 16);
  zmq::socket_t out(epgm_context, zmq::socket_type::xpub);
  out.set(zmq::sockopt::linger, 0);
  out.set(zmq::sockopt::sndhwm, kQueueMessages);
  out.set(zmq::sockopt::xpub_nodrop, true);  // back-pressure instead of silent loss; POLLOUT would always be true
  out.set(zmq::sockopt::rate, std::stoi(arguments[3]));
  out.set(zmq::sockopt::recovery_ivl, std::stoi(arguments[4]));
  out.connect(arguments[2]);
  in.connect(arguments[1]);
  zmq::message_t part;
  for (;;) {
    if (in.recv(part)) forward(in, out, part);
  }
}

int receive_side(const std::vector<std::string>& arguments) {
  zmq::context_t ipc_context(1);
  zmq::context_t epgm_context(1);
  zmq::socket_t out(ipc_context, zmq::socket_type::push);
  out.set(zmq::sockopt::linger, 0);
  ByteBound bound(out);
  zmq::socket_t in(epgm_context, zmq::socket_type::sub);
  // No limit: libzmq 4.3.4 aborts in pgm_receiver.cpp:131 when this queue is full and a reader comes back. It stays
  // short, because the loop below never waits: what finds no room further on is dropped there.
  in.set(zmq::sockopt::rcvhwm, 0);
  // The default of 208 KiB is 2 ms of a gigabit: less than a scheduler's turn. The kernel caps it at net.core.rmem_max.
  in.set(zmq::sockopt::rcvbuf, 8 * 1024 * 1024);
  in.set(zmq::sockopt::maxmsgsize, std::int64_t{2 * 1024 * 1024});
  in.set(zmq::sockopt::rate, std::stoi(arguments[3]));
  in.set(zmq::sockopt::recovery_ivl, std::stoi(arguments[4]));
  in.set(zmq::sockopt::multicast_maxtpdu, std::stoi(arguments[5]));
  for (std::size_t i = 6; i < arguments.size(); ++i) in.set(zmq::sockopt::subscribe, arguments[i]);
  out.connect(arguments[1]);
  in.connect(arguments[2]);
  zmq::message_t part;
  for (;;) {
    if (in.recv(part)) forward_or_drop(in, out, bound, part);
  }
}

}  // namespace

int main(int argc, char** argv) {
  ::setenv("PGM_MIN_LOG_LEVEL", "ERROR", 1);  // OpenPGM writes to stderr otherwise
  mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024);
  mallopt(M_TRIM_THRESHOLD, 8 * 1024 * 1024);
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    if (arguments.size() == 5 && arguments[0] == "send") return send_side(arguments);
    if (arguments.size() >= 6 && arguments[0] == "receive") return receive_side(arguments);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "fantail-epgm-relay: %s %s: %s\n", arguments[0].c_str(), arguments[2].c_str(), e.what());
    return 1;
  }
  std::fputs("fantail-epgm-relay is started by fantail-producer and fantail-consumer, not by hand\n", stderr);
  return 2;
}
