#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/options.h"
#include "common/base/program.h"
#include "common/base/result.h"
#include "common/rpc/call_table.h"

namespace fantail::pipeline {

inline constexpr const char* kDefaultEndpoint = "tcp://127.0.0.1:5570";

/// Exit codes of the commands that ask somebody; the same as those of fantail-state.
enum CommandExit : int {
  kOk = 0,
  kFailed = 1,       ///< the other side says so
  kUsage = 2,        ///< flags, arguments, or a value that is no JSON
  kTimeout = 3,      ///< no answer in time
  kUnreachable = 4,  ///< nobody answers there, or no worker is there
};

/// All of them, in the order of --help.
const std::vector<Command>& commands();

int call(int argc, const char* const* argv, const Command& command);
int collect(int argc, const char* const* argv, const Command& command);
int dead(int argc, const char* const* argv, const Command& command);
int distribute(int argc, const char* const* argv, const Command& command);
int listen(int argc, const char* const* argv, const Command& command);
int map(int argc, const char* const* argv, const Command& command);
int metadata(int argc, const char* const* argv, const Command& command);
int result(int argc, const char* const* argv, const Command& command);
int run(int argc, const char* const* argv, const Command& command);
int service(int argc, const char* const* argv, const Command& command);
int status(int argc, const char* const* argv, const Command& command);
int work(int argc, const char* const* argv, const Command& command);
int worker(int argc, const char* const* argv, const Command& command);
int workers(int argc, const char* const* argv, const Command& command);

/// The options of a command, still without any.
OptionSet options_of(const Command& command);
/// Says why a command cannot begin; the exit code.
int refuse(const Command& command, const Error& error);

}  // namespace fantail::pipeline
