#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/options.h"
#include "common/base/result.h"
#include "common/transport/epgm.h"

namespace fantail {

/// What a sender on multicast keeps to unless told otherwise.
inline constexpr std::uint64_t kDefaultMulticastMbit = 200;

/// Where a program joins multicast: the flags --interface, --group and --port, the same in every program.
struct MulticastOptions {
  std::string interface = "127.0.0.1";  ///< name or IPv4 address
  std::string group = "239.192.0.1";
  std::uint16_t port = 5550;

  /// `port_help`: what else the port is for in this program.
  void describe(OptionSet& options, const std::string& port_help = {});
  /// Everything wrong with these values, as sentences for the operator; looks at the interfaces of this host.
  std::vector<std::string> problems() const;
  /// What was said of multicast although it is not used.
  std::vector<std::string> unused_problems() const;
  /// The IPv4 address of the interface. kInvalid: it may have gone since problems() was empty.
  Result<std::string> local() const;
  /// "epgm://ADDRESS;GROUP:PORT".
  Result<std::string> address() const;
  /// For a publisher whose own pacing is `rate_mbit`; 0: the default.
  Result<EpgmConfig> to_send(std::uint64_t rate_mbit) const;
};

}  // namespace fantail
