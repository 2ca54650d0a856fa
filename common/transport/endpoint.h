#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"

namespace fantail {

/// An address as libzmq spells it, taken apart. epgm addresses are made by epgm_address, not parsed.
struct Endpoint {
  enum class Scheme : std::uint8_t { kTcp, kIpc, kInproc };
  Scheme scheme = Scheme::kTcp;
  std::string host;                   ///< tcp: host name, address, interface or "*"; else the path or name
  std::optional<std::uint16_t> port;  ///< tcp only; nothing means "any free port" ("*")

  std::string to_string() const;
  /// Reachable from this host alone: ipc, inproc, 127.0.0.0/8, ::1 or "localhost".
  bool is_local() const;
  /// It stands for all interfaces: one can listen there, and not connect to it.
  bool is_wildcard() const;
};

/// kInvalid with a sentence that names the address, what is wrong with it and what is accepted.
Result<Endpoint> parse_endpoint(std::string_view text);

/// Where the control link of a data endpoint is by convention: the next tcp port, or the ipc path with ".control" after
/// it. A data port of "any" gives a control port of "any".
Endpoint control_endpoint(const Endpoint& data);

/// Where peers reach what is bound at `bound`: there, and at `local` if that is all interfaces.
std::string reachable_at(const std::string& bound, const std::string& local);

struct NetworkInterface {
  std::string name;
  std::string address;  ///< IPv4, dotted
  int mtu = 0;          ///< bytes of the largest packet; 0 where the kernel does not tell
};

/// Every IPv4 address of every interface that is up.
std::vector<NetworkInterface> network_interfaces();

/// The IPv4 address of an interface given by name or by address. kInvalid lists those that exist. libzmq aborts the
/// process on an interface that cannot be resolved, so every epgm address goes through here first.
Result<std::string> resolve_interface(std::string_view name_or_address);

/// The largest packet, in bytes, that multicast should send on the interface with this address: what that takes in one
/// piece, at most `most`. Larger ones would be cut by IP, and lost with any of the pieces.
int multicast_packet_bytes(std::string_view interface_address, int most);

/// "epgm://ADDRESS;GROUP:PORT" of a resolved interface. kInvalid when the group is no IPv4 multicast address.
Result<std::string> epgm_address(std::string_view interface_address, std::string_view group, std::uint16_t port);

}  // namespace fantail
