#include <cstdio>
#include <string_view>

#include "common/base/version.h"
#include "pipeline/commands.h"

namespace {

void print_help(std::FILE* to) {
  std::fputs(
      "usage: fantail-pipeline COMMAND [options] [arguments]\n\n"
      "Work handed to workers, results collected.\n\n",
      to);
  for (const auto& command : fantail::pipeline::commands()) {
    std::fprintf(to, "  %-10s %s\n", command.name.data(), command.summary.data());
  }
  std::fputs("\nfantail-pipeline COMMAND --help lists the options of a command.\n", to);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name == "--help" || name == "-h") {
    print_help(stdout);
    return 0;
  }
  if (name == "--version") {
    std::printf("fantail-pipeline %s\n", fantail::kVersion);
    return 0;
  }
  for (const auto& command : fantail::pipeline::commands()) {
    if (command.name == name) return command.run(argc - 1, argv + 1, command);
  }
  if (name.empty()) {
    print_help(stderr);
  } else {
    std::fprintf(stderr, "fantail-pipeline: there is no command '%s'; --help lists those that exist\n", argv[1]);
  }
  return fantail::pipeline::kUsage;
}
