#pragma once

#include <string>

#include "common/base/private_directory.h"
#include "common/base/result.h"
#include "state/process_group.h"

namespace fantail::state {

/// A state server of one's own, as a process of a group: at an ipc:// address that nobody else knows, without
/// durability. It goes when the group goes, or when this process ends in whatever way, and leaves no files. Must not
/// outlive the group.
class PrivateServer {
 public:
  /// Starts it and waits until it answers, at most 10 s.
  static Result<PrivateServer> start(ProcessGroup& group);

  const std::string& address() const { return address_; }
  /// Its index in the group.
  std::size_t index() const { return index_; }

 private:
  PrivateServer(PrivateDirectory place, std::string address, std::size_t index)
      : place_(std::move(place)), address_(std::move(address)), index_(index) {}
  PrivateDirectory place_;
  std::string address_;
  std::size_t index_;
};

}  // namespace fantail::state
