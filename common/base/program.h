#pragma once

#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/log.h"
#include "common/base/options.h"
#include "common/base/result.h"
#include "common/base/signals.h"

namespace fantail {

/// Exit codes of every program. Commands that ask something (fantail-state get) have their own from 1 on.
enum ExitCode : int {
  kExitOk = 0,
  kExitFailure = 1,  ///< of the world, at run time
  kExitUsage = 2,    ///< flags, configuration, or something they name is in use
  kExitLoss = 3,     ///< finished, but losses were recorded
};

/// The exit code of a program that could not start.
int exit_code_of(const Error& error);

/// The name of this host, "localhost" if it has none.
std::string host_name();

/// Opens /dev/null as those of stdin, stdout and stderr that are closed, so that nothing of ours gets their numbers.
/// First of all.
void take_standard_descriptors();

/// Allocator settings for programs that move chunks: these stay in the heap instead of being mapped and unmapped each
/// time. Before the first thread.
void keep_chunks_in_heap();

/// One command of a program that has several.
struct Command {
  std::string_view name;
  std::string_view usage;  ///< behind "PROGRAM NAME"
  std::string_view summary;
  /// `argv[0]` is the name. The exit code.
  int (*run)(int argc, const char* const* argv, const Command& command);
};

/// main() of such a program: finds the command and runs it; answers --help and --version. kExitUsage: there is none of
/// that name.
int run_commands(int argc, const char* const* argv, const char* program, const char* summary,
                 const std::vector<Command>& commands);

/// For a program that is more than its commands: the exit code of the one that the first argument names, if it does.
std::optional<int> run_named_command(int argc, const char* const* argv, const std::vector<Command>& commands);

/// The options of a command, still without any.
OptionSet command_options(std::string_view program, const Command& command);

/// Reads them. An exit code: there is nothing more to do.
std::optional<int> read_command_options(OptionSet& options, int argc, const char* const* argv,
                                        const std::function<std::vector<std::string>()>& problems);

/// Says on standard error why a command cannot do what it should; its exit code.
int refuse_command(std::string_view program, const Command& command, const Error& error);

/// main() of a program that runs until it is told to stop: reads `options` into `config`, answers --help, --check and
/// the like, sets up the log and the signals, opens the program, runs it. Config has problems() and log_level;
/// Program::open(config) gives a Result<std::unique_ptr<Program>>, and run(StopSignals&) the exit code.
template <class Program, class Config>
int run_program(int argc, const char* const* argv, const char* name, OptionSet& options, const Config& config) {
  take_standard_descriptors();
  switch (options.parse(argc, argv, [&] { return config.problems(); })) {
    case OptionSet::Outcome::kExitOk: return kExitOk;
    case OptionSet::Outcome::kUsageError: return kExitUsage;
    case OptionSet::Outcome::kRun: break;
  }
  if (options.check_only()) {
    std::printf("%s: configuration is in order\n", name);
    return kExitOk;
  }
  log::set_up(config.log_level);
  keep_chunks_in_heap();
  auto signals = StopSignals::block();
  if (!signals) {
    log::error("cannot start", {{"error", signals.error()}});
    return kExitFailure;
  }
  auto program = Program::open(config);
  if (!program) {
    log::say(std::string(name) + ": " + program.error().context);
    return exit_code_of(program.error());
  }
  return (*program)->run(*signals);
}

}  // namespace fantail
