#include <cstdio>
#include <string_view>

#include "common/base/version.h"
#include "state/commands.h"

namespace {

void print_help(std::FILE* to) {
  std::fputs(
      "usage: fantail-state COMMAND [options] [arguments]\n\n"
      "A shared dictionary of JSON values, broadcast as it changes.\n\n",
      to);
  for (const auto& command : fantail::state::commands()) {
    std::fprintf(to, "  %-8s %s\n", command.name.data(), command.summary.data());
  }
  std::fputs("\nfantail-state COMMAND --help lists the options of a command.\n", to);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name == "--help" || name == "-h") {
    print_help(stdout);
    return 0;
  }
  if (name == "--version") {
    std::printf("fantail-state %s\n", fantail::kVersion);
    return 0;
  }
  for (const auto& command : fantail::state::commands()) {
    if (command.name == name) return command.run(argc - 1, argv + 1, command);
  }
  if (name.empty()) {
    print_help(stderr);
  } else {
    std::fprintf(stderr, "fantail-state: there is no command '%s'; --help lists those that exist\n", argv[1]);
  }
  return fantail::state::kUsage;
}
