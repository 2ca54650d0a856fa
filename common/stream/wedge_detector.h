#pragma once

#include <algorithm>
#include <map>
#include <optional>

#include "common/base/clock.h"
#include "common/stream/stream_subscriber.h"

namespace fantail {

/// Notices a multicast socket that has silently stopped: control links show that nodes send, and nothing of theirs
/// arrives. libzmq's epgm does that after loss that PGM cannot repair, with a core at 100 % and no error.
class WedgeDetector {
 public:
  using Activity = std::map<NodeId, StreamSubscriber::NodeActivity>;

  /// True: replace the socket now. `opened`: when the present one was. Asks less and less often while that does not
  /// help.
  bool wedged(const Activity& nodes, MonoTime opened, MonoTime now) {
    const bool silent = std::any_of(nodes.begin(), nodes.end(), [&](const auto& entry) {
      const auto& node = entry.second;
      if (!node.waiting_since || now - *node.sent_moved > kRecent) return false;
      return now - std::max(*node.waiting_since, opened) > kSilence;
    });
    const bool heard_since_opening = std::any_of(nodes.begin(), nodes.end(), [&](const auto& entry) {
      return entry.second.broadcast && *entry.second.broadcast > opened;
    });
    if (heard_since_opening) back_off_ = kFirst;
    if (!silent || now < next_) return false;
    next_ = now + back_off_;
    back_off_ = std::min(back_off_ * 2, kLongest);
    return true;
  }

 private:
  static constexpr Duration kRecent = 500ms;
  static constexpr Duration kSilence = 1s;
  static constexpr Duration kFirst = 2s;
  static constexpr Duration kLongest = 60s;
  Duration back_off_ = kFirst;
  MonoTime next_{};
};

}  // namespace fantail
