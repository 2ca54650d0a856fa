#include "common/transport/waiter.h"

#include <poll.h>
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

void Waiter::add_socket(void* socket) { items_.push_back({socket, mailbox_of(socket)}); }
void Waiter::add_descriptor(int fd) { items_.push_back({nullptr, fd}); }

void Waiter::wait(Duration timeout) {
  bool at_once = false;
  std::vector<pollfd> polled;
  polled.reserve(items_.size());
  for (Item& item : items_) {
    item.ready = item.socket != nullptr && has_message(item.socket);
    at_once = at_once || item.ready;
    polled.push_back({item.fd, POLLIN, 0});
  }
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(std::max(timeout, Duration::zero())).count();
  const int limit = at_once ? 0 : static_cast<int>(std::min<std::int64_t>(ms, 3'600'000));
  if (::poll(polled.data(), polled.size(), limit) <= 0) return;  // interrupted: like a time-out
  for (std::size_t i = 0; i < items_.size(); ++i) items_[i].ready = items_[i].ready || polled[i].revents != 0;
}

bool Waiter::ready(const void* socket) const {
  return std::any_of(items_.begin(), items_.end(), [&](const Item& i) { return i.socket == socket && i.ready; });
}

bool Waiter::ready(int fd) const {
  return std::any_of(items_.begin(), items_.end(), [&](const Item& i) { return i.fd == fd && i.ready; });
}

}  // namespace fantail
