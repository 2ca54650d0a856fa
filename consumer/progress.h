#pragma once

#include <cstdint>
#include <string>

#include "common/base/clock.h"
#include "common/stream/stream_subscriber.h"

namespace fantail {

/// The line that a person at a terminal sees: nodes, streams, MB/s, how far behind, losses; a bar with the time to go
/// while catching up. Decides nothing and knows no terminal.
class Progress {
 public:
  /// The text for now, from the overview and the bytes delivered since the start.
  std::string line(const StreamSubscriber::Overview& overview, const SubscriberCounters& counters, MonoTime now);

 private:
  MonoTime last_{};
  std::uint64_t last_bytes_ = 0;
  double rate_ = 0;                  ///< bytes per second, smoothed
  std::uint64_t catch_up_from_ = 0;  ///< delivered when catching up began
  bool catching_up_ = false;
};

}  // namespace fantail
