#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/log.h"
#include "common/base/options.h"
#include "common/stream/broadcaster.h"
#include "common/transport/endpoint.h"
#include "common/transport/epgm.h"
#include "common/transport/multicast_options.h"
#include "producer/discovery.h"
#include "producer/start_order.h"
#include "producer/tailer.h"

namespace fantail {

/// Everything that fantail-producer can be told; defaults are here and nowhere else.
struct ProducerConfig {
  std::vector<std::string> files;  ///< [TOPIC=]GLOB
  std::vector<std::string> exclude;
  std::vector<std::string> rotated;
  std::vector<std::string> from;           ///< beginning|end
  std::vector<OptionSet::Given> in_order;  ///< which `from` stands before which of `files`
  Duration ignore_older = 0s;              ///< 0: no file is too old
  std::string order = "oldest";
  std::string archives = "decompress";
  bool delete_after_commit = false;
  Duration delete_grace = 0s;
  Duration rescan = 60s;
  bool poll = false;
  bool once = false;

  std::string transport = "tcp";
  std::vector<std::string> endpoints;  ///< data; empty: the default
  bool bind = false;
  std::string control;  ///< empty: next to the data endpoint
  std::string advertise;
  MulticastOptions multicast;
  std::string node;       ///< empty: the host name
  std::string state_dir;  ///< empty: the default of the system

  std::uint64_t rate_mbit = 0;     ///< 0: 200 on epgm, unlimited on tcp
  std::vector<std::string> limit;  ///< TOPIC=MB/s
  bool fair = false;
  std::string compression = "auto";
  std::uint64_t chunk_bytes = 256 * 1024;
  Duration patience = 200ms;
  Duration hold_time = 24h;
  std::uint64_t hold_bytes = 0;
  Duration forget_after = 0s;       ///< 0: hold_time, at least a minute
  std::vector<std::string> forget;  ///< durable consumers, at the start
  Duration drain = 5s;
  log::Level log_level = log::Level::kInfo;

  bool epgm() const { return transport == "epgm"; }
  void describe(OptionSet& options);
  /// Everything wrong with these values, as sentences for the operator; empty when usable.
  std::vector<std::string> problems() const;

  // The parts in the form in which they are used. Only after problems() was empty.
  std::vector<Selection> selections() const;
  StartOrder start_order() const;
  std::vector<Glob> excludes() const;
  std::vector<Endpoint> data_endpoints() const;
  BroadcastConfig broadcast() const;
  Result<EpgmConfig> epgm_config() const;  ///< the interface may have gone since
  TailerConfig tailer() const;
};

inline constexpr const char* kDefaultTopic = "files";

}  // namespace fantail
