#include "common/transport/waiter.h"

#include <poll.h>
#include <sched.h>
#include <zmq.h>

#include <algorithm>

namespace fantail {
namespace {

/// libzmq's descriptor becomes readable once for a message, not as long as there is one: what arrived before must be
/// asked for.
bool has_message(void* socket) {
  int events = 0;
  std::size_t size = sizeof events;
  return zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) == 0 && (events & ZMQ_POLLIN) != 0;
}

int mailbox_of(void* socket) {
  int fd = -1;
  std::size_t size = sizeof fd;
  zmq_getsockopt(socket, ZMQ_FD, &fd, &size);
  return fd;
}

}  // namespace

void Waiter::add_socket(void* socket) { items_.push_back({socket, mailbox_of(socket), POLLIN}); }
void Waiter::add_descriptor(int fd) { items_.push_back({nullptr, fd, POLLIN}); }
void Waiter::add_writable(int fd) { items_.push_back({nullptr, fd, POLLOUT}); }

void Waiter::wait(Duration timeout, SpinPolicy* spin) {
  bool at_once = false;
  std::vector<pollfd> polled;
  polled.reserve(items_.size());
  for (Item& item : items_) {
    item.ready = item.socket != nullptr && has_message(item.socket);
    at_once = at_once || item.ready;
    polled.push_back({item.fd, item.events, 0});
  }
  const auto look = [&polled](Duration limit) {
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(std::max(limit, Duration::zero())).count();
    return ::poll(polled.data(), polled.size(), static_cast<int>(std::min<std::int64_t>(ms, 3'600'000)));
  };
  const MonoTime begin = spin != nullptr ? mono_now() : MonoTime{};
  const Duration spinning = spin != nullptr ? std::min(spin->look(), timeout) : Duration::zero();
  int found = spinning > Duration::zero() || at_once ? look(Duration::zero()) : 0;
  while (found == 0 && !at_once && spinning > Duration::zero() && mono_now() - begin < spinning) {
    ::sched_yield();
    found = look(Duration::zero());
  }
  if (found == 0 && !at_once) found = look(timeout);
  if (spin != nullptr) spin->waited(mono_now() - begin);
  if (found <= 0) return;  // interrupted: like a time-out
  for (std::size_t i = 0; i < items_.size(); ++i) items_[i].ready = items_[i].ready || polled[i].revents != 0;
}

bool Waiter::ready(const void* socket) const {
  return std::any_of(items_.begin(), items_.end(), [&](const Item& i) { return i.socket == socket && i.ready; });
}

bool Waiter::ready(int fd) const {
  return std::any_of(items_.begin(), items_.end(), [&](const Item& i) { return i.fd == fd && i.ready; });
}

}  // namespace fantail
