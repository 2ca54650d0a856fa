#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/transport/broadcast.h"
#include "common/transport/endpoint.h"
#include "common/transport/epgm.h"
#include "common/transport/multicast_options.h"
#include "common/transport/waiter.h"

namespace fantail {

/// Where a server broadcasts, beside the address at which it is asked: a PUB socket on tcp or ipc, or multicast. One
/// thread.
class BroadcastSide {
 public:
  struct Config {
    bool epgm = false;
    Endpoint publish;             ///< tcp and ipc
    MulticastOptions multicast;   ///< epgm
    std::uint64_t rate_mbit = 0;  ///< 0: the default of multicast, unlimited on tcp
    int queue_messages = 256;     ///< for one slow receiver
  };
  static Result<BroadcastSide> open(Context& context, const Config& config);

  BroadcastPort& port() const;
  bool multicast() const { return multicast_ != nullptr; }
  /// Where it is really bound, or the group.
  const std::string& address() const { return address_; }
  /// Bytes per second for a broadcaster that paces itself; 0: no limit.
  std::uint64_t rate_bytes_per_s() const { return rate_bytes_per_s_; }
  /// What beacons say of the control link that is bound at `control`, for those who only know the group: an address of
  /// this host alone helps nobody else. Empty: nothing.
  std::string advertised(const std::string& control) const;
  /// Connections with another key than ours, or where one side has none.
  std::uint64_t refused_keys() const { return publisher_ ? publisher_->refused_keys() : 0; }

  /// Keeps it alive. True: somebody subscribed.
  bool turn(MonoTime now);
  MonoTime due(MonoTime now) const;
  /// `blocked`: the broadcaster waits for room.
  void add_to(Waiter& waiter, bool blocked) const;

 private:
  BroadcastSide() = default;
  std::unique_ptr<Publisher> publisher_;
  std::unique_ptr<EpgmPublisher> multicast_;
  std::string address_;
  std::string local_;  ///< address of the interface
  std::uint64_t rate_bytes_per_s_ = 0;
};

}  // namespace fantail
