#pragma once

#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace fantail {

/// SIGINT and SIGTERM as a descriptor to wait on. Make it before any thread is started, so that every thread inherits
/// the blocked signals. SIGPIPE is ignored: a closed pipe is an error of the write that meets it; and
/// SIGIO, which tells of leases.
class StopSignals {
 public:
  static Result<StopSignals> block();
  int fd() const { return fd_.get(); }
  /// How many arrived since the last call.
  int take();

 private:
  explicit StopSignals(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

/// Raises the soft limit of open descriptors to the hard one and returns it.
unsigned long raise_descriptor_limit();
/// The soft limit.
unsigned long descriptor_limit();

}  // namespace fantail
