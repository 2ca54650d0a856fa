#pragma once

#include <string>

#include "common/base/result.h"
#include "common/rpc/rpc_worker.h"
#include "pipeline/command_keeper.h"

namespace fantail::pipeline {

/// "NAME=CMD", as --method and --emit take it.
struct CommandMethod {
  std::string name;
  std::string command;
  /// `flag`: for the message about what is wrong.
  static Result<CommandMethod> parse(const std::string& flag, const std::string& text);
};

/// A method that runs a command with `sh -c`: the arguments of the request on its standard input, each line of its
/// standard output but the last a partial answer, the last one the answer; all of them JSON. No output is null. Fails
/// with "exit" when the command ends with another code than 0 or by a signal, "not_json", "too_large", "timeout" at the
/// caller's deadline. `keeper` must outlive it.
rpc::RpcWorker::Method command_method(std::string command, const CommandKeeper& keeper);

}  // namespace fantail::pipeline
