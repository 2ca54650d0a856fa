#pragma once

#include <sys/types.h>

#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace fantail::pipeline {

/// Sees to it that no command outlives this process, in whatever way that ends, `kill -9` included: a small process
/// beside it, which is told of the process groups that were begun and have ended. Any thread may tell.
class CommandKeeper {
 public:
  /// Before the first thread.
  static Result<CommandKeeper> start();
  CommandKeeper(CommandKeeper&&) = default;
  CommandKeeper& operator=(CommandKeeper&&) = default;

  void began(pid_t group) const { tell(group); }
  void ended(pid_t group) const { tell(-group); }

 private:
  explicit CommandKeeper(UniqueFd words) : words_(std::move(words)) {}
  void tell(pid_t word) const;

  UniqueFd words_;
};

}  // namespace fantail::pipeline
