#pragma once

#include <vector>

#include "common/base/clock.h"

namespace fantail {

/// What a loop sleeps on when no duty had work: sockets and descriptors that become readable, or a time. Owned by the
/// loop's thread. Entries are added once; what they refer to must outlive the waiter.
class Waiter {
 public:
  /// `socket` is a libzmq socket as given by the native_socket() of our socket classes.
  void add_socket(void* socket);
  void add_descriptor(int fd);
  /// For one wait only, e.g. the mailbox descriptor of a socket whose sending is blocked.
  void add_once(int fd);
  /// Returns when something is readable, a signal came, or after `timeout` (rounded up to a millisecond, not negative).
  void wait(Duration timeout);

 private:
  struct Item {
    void* socket;
    int fd;
  };
  std::vector<Item> items_;
  std::size_t permanent_ = 0;
};

}  // namespace fantail
