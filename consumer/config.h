#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/log.h"
#include "common/base/options.h"
#include "common/stream/stream_subscriber.h"
#include "common/transport/endpoint.h"
#include "common/transport/epgm.h"
#include "common/transport/multicast_options.h"
#include "consumer/line_options.h"
#include "consumer/record_format.h"
#include "consumer/rotation.h"

namespace fantail {

/// Everything that fantail-consumer can be told; defaults are here and nowhere else.
struct ConsumerConfig {
  std::string transport = "tcp";
  std::vector<std::string> endpoints;  ///< to bind; empty, and no connect: the default
  std::vector<std::string> connect;
  std::string control;
  MulticastOptions multicast;

  std::vector<std::string> topics;
  std::string from = "beginning";
  std::string shard;  ///< I/N, I from 1
  std::string name;   ///< durable name; empty: made from the host name and the state's id
  std::string state_dir;
  std::vector<std::string> outputs;  ///< KIND:TARGET; empty: stdout
  std::string format = "raw";
  LineOptions lines;
  std::uint64_t rotate_bytes = 0;  ///< 0: never
  Duration rotate_every = 0s;      ///< 0: never
  Duration sync = 1s;
  Duration flush_partial = 5s;
  bool once = false;
  Duration idle_exit = 0s;  ///< 0: never
  Duration repair_after = 250ms;
  std::uint64_t max_pending_bytes = 64 * 1024 * 1024;
  log::Level log_level = log::Level::kInfo;

  bool epgm() const { return transport == "epgm"; }
  void describe(OptionSet& options);
  std::vector<std::string> problems() const;

  struct Output {
    enum class Kind : std::uint8_t { kStdout, kMirror, kFile } kind = Kind::kStdout;
    std::string target;
  };
  // The parts in the form in which they are used. Only after problems() was empty.
  std::vector<Output> sinks() const;
  Rotation rotation() const;
  std::vector<Endpoint> bind_endpoints() const;
  Interest interest() const;
  std::vector<std::string> subscriptions() const;
  SubscriberConfig subscriber(bool durable) const;
  Result<EpgmConfig> epgm_config() const;  ///< the interface may have gone since
  /// Cursors are kept and commits are made.
  bool durable() const;
};

}  // namespace fantail
