#include "common/transport/endpoint.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <memory>

#include "common/base/unique_fd.h"

namespace fantail {
namespace {

constexpr std::string_view kForms = "tcp://HOST:PORT, tcp://*:PORT or ipc:///PATH (multicast: --transport epgm)";

tl::unexpected<Error> bad(std::string_view text, std::string_view why) {
  return fail(ErrorCode::kInvalid,
              "endpoint '" + std::string(text) + "': " + std::string(why) + "; use " + std::string(kForms));
}

std::optional<in_addr> to_ipv4(std::string_view text) {
  in_addr address{};
  if (::inet_pton(AF_INET, std::string(text).c_str(), &address) != 1) return std::nullopt;
  return address;
}

}  // namespace

std::string Endpoint::to_string() const {
  switch (scheme) {
    case Scheme::kIpc: return "ipc://" + host;
    case Scheme::kInproc: return "inproc://" + host;
    case Scheme::kTcp: break;
  }
  return "tcp://" + host + ":" + (port ? std::to_string(*port) : "*");
}

bool Endpoint::is_local() const {
  return scheme != Scheme::kTcp || host == "localhost" || host == "[::1]" ||
         (host.starts_with("127.") && to_ipv4(host));
}

bool Endpoint::is_wildcard() const {
  return scheme == Scheme::kTcp && (host == "*" || host == "0.0.0.0" || host == "[::]" || host == "::");
}

std::string reachable_at(const std::string& bound, const std::string& local) {
  auto endpoint = parse_endpoint(bound);
  if (!endpoint || !endpoint->is_wildcard()) return bound;
  endpoint->host = local;
  return endpoint->to_string();
}

Result<Endpoint> parse_endpoint(std::string_view text) {
  if (text.starts_with("norm://"))
    return bad(text, "norm is not supported: libzmq's NORM transport loses 4 KiB messages");
  if (text.starts_with("epgm://") || text.starts_with("pgm://")) {
    return fail(ErrorCode::kInvalid,
                "endpoint '" + std::string(text) +
                    "': multicast is chosen with --transport epgm --interface NAME --group ADDR --port N");
  }
  Endpoint out;
  if (text.starts_with("ipc://") || text.starts_with("inproc://")) {
    out.scheme = text.starts_with("ipc://") ? Endpoint::Scheme::kIpc : Endpoint::Scheme::kInproc;
    out.host = text.substr(text.find("://") + 3);
    if (out.host.empty()) return bad(text, "has no path");
    constexpr std::size_t kUnixPathBytes = 107 - sizeof(".control");  // sockaddr_un
    if (out.host.size() > kUnixPathBytes) return bad(text, "the path is longer than a unix socket allows (98 bytes)");
    return out;
  }
  if (!text.starts_with("tcp://")) return bad(text, "unknown transport");
  const std::string_view rest = text.substr(6);
  const auto colon = rest.rfind(':');
  if (colon == std::string_view::npos) return bad(text, "has no port");
  out.host = rest.substr(0, colon);
  if (out.host.empty()) return bad(text, "has no host");
  const std::string_view digits = rest.substr(colon + 1);
  if (digits == "*" || digits == "0") return out;
  unsigned value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc{} || end != digits.data() + digits.size() || value == 0 || value > 65535) {
    return bad(text, "the port must be a number from 1 to 65535");
  }
  out.port = static_cast<std::uint16_t>(value);
  return out;
}

Endpoint control_endpoint(const Endpoint& data) {
  Endpoint control = data;
  if (data.scheme != Endpoint::Scheme::kTcp) {
    control.host += ".control";
  } else if (data.port) {
    // There is no port after the last one: the one before it then.
    control.port = static_cast<std::uint16_t>(*data.port == 65535 ? 65534 : *data.port + 1);
  }
  return control;
}

namespace {

/// 0 where the kernel does not tell.
int mtu_of(const char* interface) {
  const UniqueFd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strncpy(request.ifr_name, interface, sizeof(request.ifr_name) - 1);
  return ::ioctl(any.get(), SIOCGIFMTU, &request) == 0 ? request.ifr_mtu : 0;
}

}  // namespace

std::vector<NetworkInterface> network_interfaces() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return {};
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(list, ::freeifaddrs);
  std::vector<NetworkInterface> out;
  for (const ifaddrs* i = list; i != nullptr; i = i->ifa_next) {
    if (i->ifa_addr == nullptr || i->ifa_addr->sa_family != AF_INET || (i->ifa_flags & IFF_UP) == 0) continue;
    std::array<char, INET_ADDRSTRLEN> text{};
    const auto* address = reinterpret_cast<const sockaddr_in*>(i->ifa_addr);
    ::inet_ntop(AF_INET, &address->sin_addr, text.data(), text.size());
    out.push_back({i->ifa_name, text.data(), mtu_of(i->ifa_name)});
  }
  return out;
}

Result<std::string> resolve_interface(std::string_view name_or_address) {
  const auto all = network_interfaces();
  std::string known;
  for (const auto& i : all) {
    if (i.name == name_or_address || i.address == name_or_address) return i.address;
    known += (known.empty() ? "" : ", ") + i.name + " (" + i.address + ")";
  }
  return fail(ErrorCode::kInvalid,
              "interface '" + std::string(name_or_address) + "' has no IPv4 address here; there are: " + known);
}

int multicast_packet_bytes(std::string_view interface_address, int most) {
  constexpr int kEthernet = 1500;
  constexpr int kLeast = 576;  // what every IPv4 host must take
  for (const auto& i : network_interfaces()) {
    if (i.address == interface_address && i.mtu > 0) return std::clamp(i.mtu, kLeast, most);
  }
  return kEthernet;
}

Result<std::string> epgm_address(std::string_view interface_address, std::string_view group, std::uint16_t port) {
  const auto address = to_ipv4(group);
  if (!address || !IN_MULTICAST(ntohl(address->s_addr))) {
    return fail(ErrorCode::kInvalid,
                "group '" + std::string(group) +
                    "' is not an IPv4 multicast address; use one of 239.192.0.0 to 239.251.255.255");
  }
  if (port == 0) return fail(ErrorCode::kInvalid, "port 0: multicast needs a port that everybody knows, 1 to 65535");
  return "epgm://" + std::string(interface_address) + ";" + std::string(group) + ":" + std::to_string(port);
}

}  // namespace fantail
