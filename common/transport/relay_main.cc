// fantail-epgm-relay: the process in which the epgm sockets of one fantail program live. Started by RelayProcess only.
//
//   fantail-epgm-relay send    IPC EPGM RATE_KBIT WINDOW_MS TPDU
//   fantail-epgm-relay receive IPC EPGM RATE_KBIT WINDOW_MS TPDU PREFIX...
//
// It moves messages, each one part (multicast_message.h), between an ipc socket and a multicast one and decides
// nothing: no pacing, no repair, no memory.

#include <malloc.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>
#include <zmq.hpp>

namespace {

constexpr int kQueueMessages = 8;  // each way, on their way to the wire: PGM itself keeps what it has sent

/// Sends without waiting while less than kQueueBytes wait in `to`, else drops the message: the receiver of multicast
/// must never stand still. libzmq's own limit counts messages, whatever their size, and must not be changed while
/// connected: lowered to less than half, the pipe never opens again (4.3.4: pipe_t::check_hwm waits for a report that
/// the reader makes only at multiples of the old low-water mark).
class BoundedSender {
 public:
  explicit BoundedSender(zmq::socket_t& to) : to_(to) { to_.set(zmq::sockopt::sndhwm, 0); }

  void send_or_drop(zmq::message_t&& message) {
    const std::size_t cost = message.size() + kOverhead;
    if (waiting_.load(std::memory_order_relaxed) + cost > kQueueBytes) return;
    waiting_.fetch_add(cost, std::memory_order_relaxed);
    auto* held = new Held{std::move(message), waiting_};
    // Given back when libzmq has sent the last byte, on its thread, or at once when it does not take it.
    zmq::message_t lent(
        held->message.data(), held->message.size(),
        [](void*, void* hint) {
          const std::unique_ptr<Held> done(static_cast<Held*>(hint));
          done->waiting.fetch_sub(done->message.size() + kOverhead, std::memory_order_relaxed);
        },
        held);
    (void)to_.send(lent, zmq::send_flags::dontwait);
  }

 private:
  static constexpr std::size_t kQueueBytes = 16 * 1024 * 1024;
  static constexpr std::size_t kOverhead = 256;  // what libzmq and we keep for each message besides its bytes
  struct Held {
    zmq::message_t message;
    std::atomic<std::size_t>& waiting;
  };
  zmq::socket_t& to_;
  std::atomic<std::size_t> waiting_ = 0;
};

int send_side(const std::vector<std::string>& arguments) {
  zmq::context_t ipc_context(1);
  zmq::context_t epgm_context(1);
  zmq::socket_t in(ipc_context, zmq::socket_type::pull);
  in.set(zmq::sockopt::rcvhwm, kQueueMessages);
  zmq::socket_t out(epgm_context, zmq::socket_type::xpub);
  out.set(zmq::sockopt::linger, 0);
  out.set(zmq::sockopt::sndhwm, kQueueMessages);
  out.set(zmq::sockopt::xpub_nodrop, true);  // back-pressure instead of silent loss; POLLOUT would always be true
  out.set(zmq::sockopt::rate, std::stoi(arguments[3]));
  out.set(zmq::sockopt::recovery_ivl, std::stoi(arguments[4]));
  out.set(zmq::sockopt::multicast_maxtpdu, std::stoi(arguments[5]));
  out.connect(arguments[2]);
  in.connect(arguments[1]);
  zmq::message_t message;
  for (;;) {
    if (!in.recv(message)) continue;
    while (!out.send(message, zmq::send_flags::none)) {
    }
  }
}

int receive_side(const std::vector<std::string>& arguments) {
  zmq::context_t ipc_context(1);
  zmq::context_t epgm_context(1);
  zmq::socket_t out(ipc_context, zmq::socket_type::push);
  out.set(zmq::sockopt::linger, 0);
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
  BoundedSender sender(out);
  out.connect(arguments[1]);
  in.connect(arguments[2]);
  zmq::message_t message;
  for (;;) {
    if (in.recv(message)) sender.send_or_drop(std::move(message));
  }
}

}  // namespace

int main(int argc, char** argv) {
  ::setenv("PGM_MIN_LOG_LEVEL", "ERROR", 1);  // OpenPGM writes to stderr otherwise
  // Its own choice is the time of day: set back by somebody, nothing is sent until it has caught up.
  ::setenv("PGM_TIMER", "CLOCK_GETTIME", 1);
  mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024);
  mallopt(M_TRIM_THRESHOLD, 8 * 1024 * 1024);
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    if (arguments.size() == 6 && arguments[0] == "send") return send_side(arguments);
    if (arguments.size() >= 6 && arguments[0] == "receive") return receive_side(arguments);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "fantail-epgm-relay: %s %s: %s\n", arguments[0].c_str(), arguments[2].c_str(), e.what());
    return 1;
  }
  std::fputs("fantail-epgm-relay is started by the other programs where they use epgm, not by hand\n", stderr);
  return 2;
}
