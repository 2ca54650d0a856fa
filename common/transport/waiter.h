#pragma once

#include <vector>

#include "common/base/clock.h"
#include "common/transport/spin_policy.h"

namespace fantail {

/// What a loop sleeps on when no duty had work: sockets and descriptors that become readable, or a time. Owned by the
/// loop's thread. What the entries refer to must outlive the wait.
class Waiter {
 public:
  /// `socket` is a libzmq socket as given by the native_socket() of our socket classes.
  void add_socket(void* socket);
  void add_descriptor(int fd);
  /// Until it can be written to, or nobody reads it any more.
  void add_writable(int fd);
  /// Returns when something may be readable, a signal came, or after `timeout` (rounded up to a millisecond, not
  /// negative). Cheaper than zmq::poll, which asks every socket again after waking; whoever is woken here looks anyway.
  /// `spin`: may make it look for a while before it sleeps; nullptr: sleeps at once.
  void wait(Duration timeout, SpinPolicy* spin = nullptr);
  /// Whether the last wait saw this socket or descriptor ready.
  bool ready(const void* socket) const;
  bool ready(int fd) const;

 private:
  struct Item {
    void* socket;
    int fd;
    short events;
    bool ready = false;
  };
  std::vector<Item> items_;
};

}  // namespace fantail
