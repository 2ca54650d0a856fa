#include "common/transport/connections.h"

#include <algorithm>

#include "common/base/log.h"

namespace fantail::transport {
namespace {

constexpr Duration kRenewAfter = 1s;

}  // namespace

Status Connections::connect(zmq::socket_t& socket, const std::string& address) {
  if (auto ok = connect_socket(socket, address); !ok) return ok;
  renew_at_[address];
  return {};
}

void Connections::refused(std::string_view address, MonoTime now) {
  const auto found = renew_at_.find(address);
  if (found == renew_at_.end() || found->second) return;
  found->second = now + kRenewAfter;
  next_ = std::min<MonoTime>(next_, now + kRenewAfter);
}

void Connections::tend(zmq::socket_t& socket, MonoTime now) {
  if (now < next_) return;
  next_ = MonoTime::max();
  for (auto& [address, renew_at] : renew_at_) {
    if (!renew_at) continue;
    if (*renew_at > now) {
      next_ = std::min(next_, *renew_at);
      continue;
    }
    renew_at.reset();
    if (const auto ok = reconnect_socket(socket, address); !ok) {
      log::warn("cannot connect again", {{"endpoint", address}, {"error", ok.error()}});
    }
  }
}

Status reconnect_socket(zmq::socket_t& socket, const std::string& address) {
  // Nothing to disconnect is no error: libzmq may have forgotten it.
  zmq_disconnect(socket.handle(), address.c_str());
  return connect_socket(socket, address);
}

}  // namespace fantail::transport
