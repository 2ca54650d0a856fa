#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/clock.h"
#include "common/transport/zmq_socket.h"

namespace fantail::transport {

/// The addresses that one data socket connects to. libzmq gives up for good a connection whose other side turned out to
/// speak with keys where we do not, or without where we do: it is made anew after a while, so that all is well once the
/// other side runs as it should. Internal to common/transport.
class Connections {
 public:
  Status connect(zmq::socket_t& socket, const std::string& address);
  /// The greeting with this address failed; one that we do not connect to is ignored.
  void refused(std::string_view address, MonoTime now);
  /// To be called now and then; never waits.
  void tend(zmq::socket_t& socket, MonoTime now);

 private:
  std::map<std::string, std::optional<MonoTime>, std::less<>> renew_at_;  ///< by address
  MonoTime next_ = MonoTime::max();
};

/// Makes a connection anew.
Status reconnect_socket(zmq::socket_t& socket, const std::string& address);

}  // namespace fantail::transport
