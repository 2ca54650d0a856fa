#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/log.h"
#include "common/base/options.h"
#include "common/transport/broadcast_side.h"
#include "common/transport/multicast_options.h"

namespace fantail::pipeline {

inline constexpr const char* kDefaultDistributor = "tcp://127.0.0.1:5571";
inline constexpr const char* kDefaultCollector = "tcp://127.0.0.1:5573";

/// Everything that a collector can be told.
struct CollectorConfig {
  std::string endpoint = kDefaultCollector;  ///< workers, the distributor and those who ask for results come here
  std::string transport = "tcp";             ///< how results are broadcast
  std::string publish;                       ///< tcp and ipc; empty: two ports behind the endpoint
  MulticastOptions multicast{.port = 5575};
  std::uint64_t rate_mbit = 0;
  std::string key_file;
  std::string state_dir;
  std::string output;     ///< results are appended to this file, too; "-": stdout; empty: nowhere
  Duration result_ttl{};  ///< stays so long after a run is finished, to be asked for results; zero: ends with it
  bool stay = false;      ///< does not end with the run: for the next one
  Duration drain = 10s;   ///< consumers that are there get so long for the last results
  log::Level log_level = log::Level::kInfo;

  bool epgm() const { return transport == "epgm"; }
  void describe(OptionSet& options);
  std::vector<std::string> problems() const;
  BroadcastSide::Config broadcast() const;  ///< only after problems() was empty
};

}  // namespace fantail::pipeline
