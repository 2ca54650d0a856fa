#include "pipeline/collector_config.h"

#include "common/transport/context.h"

namespace fantail::pipeline {
namespace {

constexpr std::uint16_t kPublishBehind = 2;  // the port between is free for a control link by convention

}  // namespace

void CollectorConfig::describe(OptionSet& options) {
  options.text("endpoint", endpoint, "ADDR", "tcp or ipc: listen here for results, and for those who ask for them");
  options.choice("transport", transport, {"tcp", "epgm"}, "how results are broadcast on results/TASK");
  options.text("publish", publish, "ADDR", "tcp or ipc: broadcast results here (default: port of --endpoint + 2)");
  multicast.describe(options);
  options.number("rate", rate_mbit, 0, 10'000, "MBIT", "pace broadcasts; 0: 200 on epgm, unlimited on tcp");
  options.text("output", output, "FILE", "append each result to FILE as it comes, one JSON line; - is stdout");
  options.seconds("result-ttl", result_ttl, "stay so long after a run, to be asked for its results; then remove them");
  options.flag("stay", stay, "do not end with a run: wait for the next one");
  options.seconds("drain", drain, "give consumers that are there so long to get the last results");
  options.text("key-file", key_file, "FILE", "serve only those who have this key (default: $FANTAIL_KEY_FILE)");
  options.text("state-dir", state_dir, "DIR", "where results are kept (default: $STATE_DIRECTORY, /var/lib or XDG)");
  options.log_level(log_level);
}

std::vector<std::string> CollectorConfig::problems() const {
  std::vector<std::string> out;
  if (const auto at = parse_endpoint(endpoint); !at) out.push_back(at.error().context);
  if (!publish.empty()) {
    if (const auto at = parse_endpoint(publish); !at) out.push_back(at.error().context);
  }
  if (!epgm()) {
    for (auto& problem : multicast.unused_problems()) out.push_back(std::move(problem));
    return out;
  }
  if (!key_file_of(key_file).empty()) {
    out.push_back("--key-file '" + key_file_of(key_file) +
                  "': multicast carries no keys, everybody on the network would read the results; use --transport tcp");
  }
  if (!publish.empty()) {
    out.push_back("--publish '" + publish + "': has no effect on epgm; use --interface, --group and --port");
  }
  for (auto& problem : multicast.problems()) out.push_back(std::move(problem));
  return out;
}

BroadcastSide::Config CollectorConfig::broadcast() const {
  Endpoint at;
  if (!publish.empty()) {
    at = *parse_endpoint(publish);
  } else {
    at = *parse_endpoint(endpoint);
    if (at.scheme != Endpoint::Scheme::kTcp) {
      at.host += ".publish";
    } else if (at.port) {
      at.port = static_cast<std::uint16_t>(*at.port + (*at.port > 65533 ? -kPublishBehind : kPublishBehind));
    }
  }
  return {.epgm = epgm(), .publish = at, .multicast = multicast, .rate_mbit = rate_mbit};
}

}  // namespace fantail::pipeline
