#pragma once

#include <sys/types.h>

#include <string>

#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace fantail::pipeline {

/// Sees to it that no command outlives this process, in whatever way that ends, `kill -9` included: a small process
/// beside it, which is told of the process groups that were begun and have ended. When this process did not end by
/// itself, the keeper looks for all processes with its mark in their environment, too: one that was begun and not told
/// of yet, or that has left its group. Any thread may tell.
class CommandKeeper {
 public:
  /// Before the first thread.
  static Result<CommandKeeper> start();
  CommandKeeper(CommandKeeper&&) = default;
  CommandKeeper& operator=(CommandKeeper&&) = default;
  ~CommandKeeper();

  void began(pid_t group) const { tell(group); }
  void ended(pid_t group) const { tell(-group); }
  /// To be set in the environment of every command that is begun: our mark, behind those of keepers around us.
  static constexpr const char* kMarkName = "FANTAIL_KEEPER";
  const std::string& mark() const { return mark_; }

 private:
  CommandKeeper(UniqueFd words, std::string mark) : words_(std::move(words)), mark_(std::move(mark)) {}
  void tell(pid_t word) const;

  UniqueFd words_;
  std::string mark_;
};

}  // namespace fantail::pipeline
