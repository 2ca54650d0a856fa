#include "pipeline/commands.h"

#include "common/base/program.h"
#include "common/base/version.h"
#include "common/wire/messages.h"
#include "pipeline/service.h"

namespace fantail::pipeline {

wire::Peer self_as(wire::Role role, std::string name) {
  wire::Peer self;
  self.role = role;
  self.software = std::string("fantail ") + kVersion;
  self.instance = random_id<InstanceId>();
  self.name = std::move(name);
  return self;
}

int service(int argc, const char* const* argv, const Command& command) {
  ServiceConfig config;
  const std::string name = "fantail-pipeline " + std::string(command.name);
  OptionSet options(name, name + " " + std::string(command.usage), std::string(command.summary));
  options.text("endpoint", config.endpoint, "ADDR", "where workers and clients come to");
  options.text("key-file", config.key_file, "FILE",
               "the key that all who belong to it share (default: $FANTAIL_KEY_FILE, else none)");
  options.log_level(config.log_level);
  return run_program<Service>(argc, argv, name.c_str(), options, config);
}

const std::vector<Command>& commands() {
  static const std::vector<Command> all = {
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
