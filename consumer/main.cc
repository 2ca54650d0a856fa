#include <malloc.h>

#include <cstdio>

#include "common/base/log.h"
#include "common/base/options.h"
#include "common/base/signals.h"
#include "consumer/config.h"
#include "consumer/consumer.h"

int main(int argc, char** argv) {
  using namespace fantail;
  ConsumerConfig config;
  OptionSet options("fantail-consumer", "fantail-consumer [options]",
                    "Receives what producers broadcast, fetches what is missing, and writes it exactly once.");
  config.describe(options);
  switch (options.parse(argc, argv, [&] { return config.problems(); })) {
    case OptionSet::Outcome::kExitOk: return 0;
    case OptionSet::Outcome::kUsageError: return 2;
    case OptionSet::Outcome::kRun: break;
  }
  if (options.check_only()) {
    std::puts("fantail-consumer: configuration is in order");
    return 0;
  }
  log::set_up(config.log_level);
  // Chunk-sized blocks stay in the heap instead of being mapped and unmapped each time.
  mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024);
  mallopt(M_TRIM_THRESHOLD, 8 * 1024 * 1024);

  auto signals = StopSignals::block();
  if (!signals) {
    log::error("cannot start", {{"error", signals.error()}});
    return 1;
  }
  auto consumer = Consumer::open(config);
  if (!consumer) {
    log::say("fantail-consumer: " + consumer.error().context);
    const auto code = consumer.error().code;
    return code == ErrorCode::kInvalid || code == ErrorCode::kBusy ? 2 : 1;
  }
  return (*consumer)->run(*signals);
}
