#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/log.h"
#include "common/base/options.h"
#include "common/transport/endpoint.h"
#include "common/transport/multicast_options.h"
#include "state/journal.h"

namespace fantail::state {

/// Of one request or answer, larger than --max-value so that what is too large is refused in words. Whole dictionaries
/// may be set and read in one.
inline constexpr std::size_t kMaxMessageBytes = 80 * 1024 * 1024;
inline constexpr const char* kDefaultServer = "tcp://127.0.0.1:5560";

/// Everything that fantail-state serve can be told; defaults are here and nowhere else.
struct ServerConfig {
  std::string transport = "tcp";
  std::string endpoint = kDefaultServer;  ///< requests, and repair of what watchers miss
  std::string publish;                    ///< broadcast of changes; empty: two ports behind the endpoint
  MulticastOptions multicast{.port = 5562};
  std::uint64_t rate_mbit = 0;  ///< 0: 200 on epgm, unlimited on tcp
  std::string key_file;         ///< empty: $FANTAIL_KEY_FILE, else no key
  std::string name;             ///< empty: the host name
  std::string state_dir;        ///< empty: the default of the system
  std::string durability = "write";
  std::uint64_t compact_at = 256 * 1024 * 1024;
  std::uint64_t max_value = 8 * 1024 * 1024;
  log::Level log_level = log::Level::kInfo;

  bool epgm() const { return transport == "epgm"; }
  void describe(OptionSet& options);
  /// Everything wrong with these values, as sentences for the operator; empty when usable.
  std::vector<std::string> problems() const;

  // The parts in the form in which they are used. Only after problems() was empty.
  Endpoint request_endpoint() const { return *parse_endpoint(endpoint); }
  Endpoint publish_endpoint() const;
  Durability how_durable() const;
};

}  // namespace fantail::state
