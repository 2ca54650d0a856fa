#include "pipeline/command_method.h"

#include <string.h>

#include <optional>

#include "common/base/options.h"
#include "common/json/json.h"
#include "pipeline/shell_command.h"

namespace fantail::pipeline {
namespace {

using rpc::Failed;

void require_json(const std::string& command, const std::string& line) {
  if (const auto value = parse_json(line); !value) {
    throw Failed("not_json", "'" + command + "' printed '" + printable(line.substr(0, 100)) +
                                 "', which is no JSON: " + value.error().context);
  }
}

std::string last_line_of(const std::string& text) {
  const auto end = text.find_last_not_of('\n');
  if (end == std::string::npos) return {};
  const auto begin = text.rfind('\n', end);
  return text.substr(begin == std::string::npos ? 0 : begin + 1,
                     end - (begin == std::string::npos ? 0 : begin + 1) + 1);
}

}  // namespace

Result<CommandMethod> CommandMethod::parse(const std::string& flag, const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) {
    return fail(ErrorCode::kInvalid, flag + " '" + printable(text) + "': must be NAME=COMMAND");
  }
  if (equals > wire::kMaxNameBytes) return fail(ErrorCode::kInvalid, flag + ": a name has at most 255 bytes");
  return CommandMethod{text.substr(0, equals), text.substr(equals + 1)};
}

rpc::RpcWorker::Method command_method(std::string command, const CommandKeeper& keeper) {
  return [command = std::move(command), &keeper](rpc::Invocation& invocation) {
    ShellCommand run;
    run.text = command;
    run.input = invocation.arguments() + "\n";
    run.environment = {{"FANTAIL_METHOD", invocation.method()}};
    run.deadline = invocation.deadline();
    run.stop_fd = invocation.cancelled_fd();
    std::optional<std::string> last;
    const auto outcome = run_shell(run, keeper, [&](std::string line) {
      if (last) {
        require_json(command, *last);
        if (!invocation.partial(*last)) return false;
      }
      last = std::move(line);
      return true;
    });
    if (!outcome) throw Failed("cannot_start", outcome.error().context);
    const std::string said = last_line_of(outcome->errors);
    const std::string behind = said.empty() ? "" : ": " + printable(said);
    switch (outcome->ending) {
      case ShellOutcome::Ending::kExited: break;
      case ShellOutcome::Ending::kTimedOut: throw Failed("timeout", "'" + command + "' was ended at the deadline");
      case ShellOutcome::Ending::kStopped: throw Failed("cancelled", "'" + command + "' was ended");
      case ShellOutcome::Ending::kLineTooLong:
        throw Failed("too_large", "'" + command + "' printed a line of more than 1 MiB");
    }
    if (outcome->exit_code < 0) {
      const char* name = ::sigabbrev_np(-outcome->exit_code);
      throw Failed("exit", "'" + command + "' was ended by signal " + std::to_string(-outcome->exit_code) +
                               (name == nullptr ? "" : std::string(" (SIG") + name + ")") + behind);
    }
    if (outcome->exit_code > 0) {
      throw Failed("exit", "'" + command + "' ended with " + std::to_string(outcome->exit_code) + behind);
    }
    if (!last) return std::string("null");
    require_json(command, *last);
    return *last;
  };
}

}  // namespace fantail::pipeline
