#include "common/base/program.h"
#include "consumer/config.h"
#include "consumer/consumer.h"

int main(int argc, char** argv) {
  using namespace fantail;
  ConsumerConfig config;
  OptionSet options("fantail-consumer", "fantail-consumer [options]",
                    "Receives what producers broadcast, fetches what is missing, and writes it exactly once.");
  config.describe(options);
  return run_program<Consumer>(argc, argv, "fantail-consumer", options, config);
}
