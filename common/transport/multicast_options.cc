#include "common/transport/multicast_options.h"

#include <algorithm>

#include "common/transport/endpoint.h"
#include "common/transport/relay_process.h"

namespace fantail {

void MulticastOptions::describe(OptionSet& options, const std::string& port_help) {
  options.text("interface", interface, "NAME|ADDR", "epgm: the network interface");
  options.text("group", group, "ADDR", "epgm: the multicast group");
  options.number("port", port, 1, 65535, "N", "epgm: the UDP port" + (port_help.empty() ? "" : "; " + port_help));
}

std::vector<std::string> MulticastOptions::problems() const {
  std::vector<std::string> out;
  const auto at = local();
  if (!at) out.push_back("--interface: " + at.error().context);
  if (const auto ok = epgm_address(at.value_or("127.0.0.1"), group, port); !ok) {
    out.push_back("--group: " + ok.error().context);
  }
  if (const auto relay = find_relay(); !relay) out.push_back("--transport 'epgm': " + relay.error().context);
  return out;
}

std::vector<std::string> MulticastOptions::unused_problems() const {
  const MulticastOptions untouched;
  std::vector<std::string> out;
  const auto unused = [&](const char* flag, const std::string& value) {
    out.push_back("--" + std::string(flag) + " '" + value +
                  "': has no effect on tcp; leave it out, or use --transport epgm");
  };
  if (interface != untouched.interface) unused("interface", interface);
  if (group != untouched.group) unused("group", group);
  return out;
}

Result<std::string> MulticastOptions::local() const { return resolve_interface(interface); }

Result<std::string> MulticastOptions::address() const {
  const auto at = local();
  if (!at) return tl::unexpected(at.error());
  return epgm_address(*at, group, port);
}

Result<EpgmConfig> MulticastOptions::to_send(std::uint64_t rate_mbit) const {
  EpgmConfig out;
  const auto at = local();
  if (!at) return tl::unexpected(at.error());
  const auto where = address();
  if (!where) return tl::unexpected(where.error());
  out.address = *where;
  out.send_tpdu = multicast_packet_bytes(*at, out.receive_tpdu);
  // Half as much again as our own pacing, so that ours decides; libzmq's number overflows beyond two million.
  const std::uint64_t mbit = rate_mbit == 0 ? kDefaultMulticastMbit : rate_mbit;
  out.rate_kbit_per_s = std::min<std::uint64_t>(mbit * 1000 * 3 / 2, 2'000'000);
  return out;
}

}  // namespace fantail
