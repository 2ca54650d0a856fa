#include "common/base/program.h"
#include "consumer/commands.h"
#include "consumer/config.h"
#include "consumer/consumer.h"

int main(int argc, char** argv) {
  using namespace fantail;
  if (const auto code = run_named_command(argc, argv, consumer::commands())) return *code;
  ConsumerConfig config;
  OptionSet options("fantail-consumer",
                    "fantail-consumer [options]\n       fantail-consumer status|losses|rewind --help",
                    "Receives what producers broadcast, fetches what is missing, and writes it exactly once.");
  config.describe(options);
  return run_program<Consumer>(argc, argv, "fantail-consumer", options, config);
}
