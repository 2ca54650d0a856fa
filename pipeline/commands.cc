#include "pipeline/commands.h"

#include "common/base/program.h"
#include "pipeline/service.h"

namespace fantail::pipeline {
namespace {

constexpr const char* kProgram = "fantail-pipeline";

}  // namespace

OptionSet options_of(const Command& command) { return command_options(kProgram, command); }

int refuse(const Command& command, const Error& error) { return refuse_command(kProgram, command, error); }

int service(int argc, const char* const* argv, const Command& command) {
  ServiceConfig config;
  const std::string name = std::string(kProgram) + " " + std::string(command.name);
  OptionSet options = options_of(command);
  options.text("endpoint", config.endpoint, "ADDR", "where workers and clients come to");
  options.text("key-file", config.key_file, "FILE",
               "the key that all who belong to it share (default: $FANTAIL_KEY_FILE, else none)");
  options.log_level(config.log_level);
  return run_program<Service>(argc, argv, name.c_str(), options, config);
}

const std::vector<Command>& commands() {
  static const std::vector<Command> all = {
      {"run", "--lines FILE --task NAME=CMD... [options]",
       "Does the lines of a file with commands, on workers of this host and of others; prints the results.", &run},
      {"map", "CMD [options]", "Prints what CMD makes of each line of stdin, in their order.", &map},
      {"distribute", "--lines FILE --task NAME=CMD... [options]", "Hands jobs to workers that come for them.",
       &distribute},
      {"work", "[options]", "Does jobs of a distributor.", &work},
      {"collect", "[options]", "Takes results of workers, keeps and publishes them.", &collect},
      {"dead", "list|show|requeue|purge [ID...] [options]", "Looks after jobs that were given up.", &dead},
      {"result", "ID [options]", "Prints the result of one job.", &result},
      {"status", "[options]", "Prints how far a distributor or a collector is.", &status},
      {"metadata", "JSON [options]", "Tells a distributor that waits for it what all of a run are to know.", &metadata},
      {"workers", "N [options]", "Changes how many workers a run has.", &workers},
      {"service", "[options]", "Hands requests of clients to workers and answers back, at one well-known address.",
       &service},
      {"worker", "ADDRESS --method NAME=CMD... [options]",
       "Answers requests with commands: of a service or a caller that listens at ADDRESS.", &worker},
      {"call", "ADDRESS METHOD [options]",
       "Makes one request, or several, to a service or a worker that listens at ADDRESS.", &call},
      {"listen", "ADDRESS [options]", "Prints what workers of a service tell (--emit), a line of JSON each.", &listen},
  };
  return all;
}

}  // namespace fantail::pipeline
