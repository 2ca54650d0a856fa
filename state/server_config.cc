#include "state/server_config.h"

#include "state/client.h"

namespace fantail::state {
namespace {

constexpr std::uint16_t kPublishBehind = 2;  // the port between is free for a control link by convention
constexpr std::uint64_t kLeastCompactAt = 64 * 1024;
constexpr std::uint64_t kMostValue = 64 * 1024 * 1024;

}  // namespace

void ServerConfig::describe(OptionSet& options) {
  options.group("Transport");
  options.text("endpoint", endpoint, "ADDR", "tcp or ipc: listen here for requests");
  options.text("publish", publish, "ADDR", "tcp or ipc: broadcast changes here (default: port of --endpoint + 2)");
  options.choice("transport", transport, {"tcp", "epgm"}, "how changes are broadcast; requests stay on --endpoint");
  multicast.describe(options);
  options.text("key-file", key_file, "FILE",
               "serve only those who have this key (default: $FANTAIL_KEY_FILE, else everybody); see keygen");
  options.number("rate", rate_mbit, 0, 10'000, "MBIT", "pace broadcasts; 0: 200 on epgm, unlimited on tcp");
  options.group("State");
  options.text("state-dir", state_dir, "DIR",
               "where the journal is (default: $STATE_DIRECTORY, /var/lib/fantail or XDG)");
  options.choice("durability", durability, {"write", "fsync", "none"},
                 "what a change must have reached before it is answered: the kernel, the disk, or memory");
  options.bytes("compact-at", compact_at, kLeastCompactAt, "begin another journal when this one is so long");
  options.bytes("max-value", max_value, 1024, "largest value, as JSON text");
  options.text("name", name, "NAME", "name of this server (default: the host name)");
  options.log_level(log_level);
}

std::vector<std::string> ServerConfig::problems() const {
  std::vector<std::string> out;
  const auto need = [&](const auto& result) {
    if (!result) out.push_back(result.error().context);
  };
  const auto requests = parse_endpoint(endpoint);
  need(requests);
  if (!publish.empty()) need(parse_endpoint(publish));
  if (max_value > kMostValue) {
    out.push_back("--max-value '" + std::to_string(max_value) + "': must be at most " + std::to_string(kMostValue) +
                  " bytes; keep larger things in files and their names here");
  }
  if (epgm()) {
    if (!key_file_of(key_file).empty()) {
      out.push_back(
          "--key-file '" + key_file_of(key_file) +
          "': multicast carries no keys, everybody on the network would read the changes; use --transport tcp");
    }
    if (!publish.empty()) {
      out.push_back("--publish '" + publish + "': has no effect on epgm; use --interface, --group and --port");
    }
    for (auto& problem : multicast.problems()) out.push_back(std::move(problem));
  } else {
    for (auto& problem : multicast.unused_problems()) out.push_back(std::move(problem));
  }
  return out;
}

Endpoint ServerConfig::publish_endpoint() const {
  if (!publish.empty()) return *parse_endpoint(publish);
  Endpoint out = request_endpoint();
  if (out.scheme == Endpoint::Scheme::kTcp) {
    if (out.port)
      out.port = static_cast<std::uint16_t>(*out.port + (*out.port > 65533 ? -kPublishBehind : kPublishBehind));
  } else {
    out.host += ".publish";
  }
  return out;
}

Durability ServerConfig::how_durable() const {
  if (durability == "none") return Durability::kNone;
  return durability == "fsync" ? Durability::kFsync : Durability::kWrite;
}

}  // namespace fantail::state
