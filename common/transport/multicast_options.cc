#include "common/transport/multicast_options.h"

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

}  // namespace fantail
