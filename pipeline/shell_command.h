#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "pipeline/command_keeper.h"

namespace fantail::pipeline {

inline constexpr std::size_t kMaxLineBytes = 1024 * 1024;  ///< of what a command prints

struct ShellCommand {
  std::string text;                                ///< for `sh -c`
  std::string input;                               ///< on its standard input
  std::map<std::string, std::string> environment;  ///< added to ours
  std::optional<MonoTime> deadline;                ///< ended then
  int stop_fd = -1;                                ///< ended when this is readable; -1: never
  Duration grace = 500ms;                          ///< between SIGTERM and SIGKILL
};

struct ShellOutcome {
  enum class Ending : std::uint8_t { kExited, kTimedOut, kStopped, kLineTooLong };
  Ending ending = Ending::kExited;
  int exit_code = 0;   ///< -N: by signal N
  std::string errors;  ///< the last 4 KiB of its standard error
};

/// Runs a command and waits for it, with all that it starts in its process group; nothing of that is left afterwards.
/// `on_line` gets each line of its standard output without its end; false from it stops the command.
Result<ShellOutcome> run_shell(const ShellCommand& command, const CommandKeeper& keeper,
                               const std::function<bool(std::string line)>& on_line);

}  // namespace fantail::pipeline
