#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/options.h"
#include "common/base/program.h"
#include "common/rpc/call_table.h"

namespace fantail::state {

/// Exit codes of the commands that ask a state server.
enum CommandExit : int {
  kOk = 0,
  kFalse = 1,        ///< a condition does not hold, a key is absent, or the server refused
  kUsage = 2,        ///< flags, arguments, or a value that is no JSON
  kTimeout = 3,      ///< what was waited for did not come in time
  kUnreachable = 4,  ///< no server answers there
};

/// The flags that every such command has.
struct ClientOptions {
  std::string server;
  std::string name_space = "default";
  std::string key_file;
  Duration timeout = 5s;
  bool json = false;  ///< print whole answers, also errors, as JSON objects

  void describe(OptionSet& options);
  std::vector<std::string> problems() const;
};

/// Prints a failed call and returns the exit code for it.
int report(const rpc::CallError& error, const ClientOptions& options);

/// All of them, in the order of --help.
const std::vector<Command>& commands();

/// The arguments behind "--", taken off.
std::vector<std::string> take_command(std::vector<const char*>& arguments);

int serve(int argc, const char* const* argv, const Command& command);
int watch(int argc, const char* const* argv, const Command& command);
int run(int argc, const char* const* argv, const Command& command);
int wait(int argc, const char* const* argv, const Command& command);

}  // namespace fantail::state
