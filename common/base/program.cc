#include "common/base/program.h"

#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <array>
#include <cstdio>

#include "common/base/version.h"

namespace fantail {

int exit_code_of(const Error& error) {
  return error.code == ErrorCode::kInvalid || error.code == ErrorCode::kBusy ? kExitUsage : kExitFailure;
}

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name[0] == '\0' ? "localhost" : name.data();
}

void take_standard_descriptors() {
  for (;;) {
    const int fd = ::open("/dev/null", O_RDWR);
    if (fd < 0) return;
    if (fd > STDERR_FILENO) {
      ::close(fd);
      return;
    }
  }
}

void keep_chunks_in_heap() {
  mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024);
  mallopt(M_TRIM_THRESHOLD, 8 * 1024 * 1024);
}

std::optional<int> run_named_command(int argc, const char* const* argv, const std::vector<Command>& commands) {
  for (const auto& command : commands) {
    if (argc < 2 || command.name != argv[1]) continue;
    take_standard_descriptors();
    return command.run(argc - 1, argv + 1, command);
  }
  return std::nullopt;
}

int run_commands(int argc, const char* const* argv, const char* program, const char* summary,
                 const std::vector<Command>& commands) {
  take_standard_descriptors();
  const std::string_view name = argc > 1 ? argv[1] : "";
  const auto print_help = [&](std::FILE* to) {
    std::fprintf(to, "usage: %s COMMAND [options] [arguments]\n\n%s\n\n", program, summary);
    for (const auto& command : commands) std::fprintf(to, "  %-10s %s\n", command.name.data(), command.summary.data());
    std::fprintf(to, "\n%s COMMAND --help lists the options of a command.\n", program);
  };
  if (name == "--help" || name == "-h") {
    print_help(stdout);
    return kExitOk;
  }
  if (name == "--version") {
    std::printf("%s %s\n", program, kVersion);
    return kExitOk;
  }
  for (const auto& command : commands) {
    if (command.name == name) return command.run(argc - 1, argv + 1, command);
  }
  if (name.empty()) {
    print_help(stderr);
  } else {
    std::fprintf(stderr, "%s: there is no command '%s'; --help lists those that exist\n", program, argv[1]);
  }
  return kExitUsage;
}

OptionSet command_options(std::string_view program, const Command& command) {
  const std::string name = std::string(program) + " " + std::string(command.name);
  return {name, name + " " + std::string(command.usage), std::string(command.summary)};
}

std::optional<int> read_command_options(OptionSet& options, int argc, const char* const* argv,
                                        const std::function<std::vector<std::string>()>& problems) {
  switch (options.parse(argc, argv, problems)) {
    case OptionSet::Outcome::kExitOk: return kExitOk;
    case OptionSet::Outcome::kUsageError: return kExitUsage;
    case OptionSet::Outcome::kRun: break;
  }
  if (options.check_only()) return kExitOk;
  return std::nullopt;
}

int refuse_command(std::string_view program, const Command& command, const Error& error) {
  log::say(std::string(program) + " " + std::string(command.name) + ": " + error.context);
  return exit_code_of(error);
}

}  // namespace fantail
