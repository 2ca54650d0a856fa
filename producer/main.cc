#include "common/base/program.h"
#include "producer/commands.h"
#include "producer/config.h"
#include "producer/producer.h"

int main(int argc, char** argv) {
  using namespace fantail;
  if (const auto code = run_named_command(argc, argv, producer::commands())) return *code;
  ProducerConfig config;
  OptionSet options("fantail-producer",
                    "fantail-producer [options] [TOPIC=]GLOB...\n       fantail-producer status|forget|rewind --help",
                    "Tails files and broadcasts their bytes to consumers. Nothing is lost while the file exists.");
  config.describe(options);
  return run_program<Producer>(argc, argv, "fantail-producer", options, config);
}
