#pragma once

#include <algorithm>
#include <utility>

#include "common/base/clock.h"

namespace fantail {

struct HeartbeatTiming {
  Duration interval = 1s;  ///< a ping after this long without having heard anything
  int missed = 3;          ///< so many intervals without a sign: dead
};

/// Decides from the times a peer was heard when to ping it and when to give it up (the liveness part of the Paranoid
/// Pirate pattern, ZeroMQ guide chapter 4). Any message counts as a sign of life.
class PeerHealth {
 public:
  enum class Verdict { kFine, kPing, kDead };
  /// Which side of a link pings while both are idle: the second one waits half an interval longer, and hears the ping
  /// of the first one by then.
  enum class Side { kFirst, kSecond };

  PeerHealth(HeartbeatTiming timing, MonoTime now, Side side = Side::kFirst)
      : timing_(timing), side_(side), heard_(now), pinged_(now) {}

  void heard(MonoTime now) {
    heard_ = now;
    excused_ = false;
  }
  /// Nobody has listened for a while, of which this is the end: we were stopped, or computed. What the peer said may
  /// not have reached us yet, so it is asked once more before it is given up.
  void was_not_listened_to(MonoTime now) {
    if (std::exchange(excused_, true)) return;  // one that is dead must not live by that
    heard_ = std::max<MonoTime>(heard_, now - timing_.interval * 3 / 2);
  }
  Duration silent_for(MonoTime now) const { return now - heard_; }
  /// From now on with another interval. Silence that was in order until now counts as one interval at most.
  void set_interval(Duration interval, MonoTime now) {
    if (interval < timing_.interval) heard_ = std::max<MonoTime>(heard_, now - interval);
    timing_.interval = interval;
  }
  /// kPing at most once per interval.
  Verdict check(MonoTime now) {
    if (now - heard_ >= timing_.interval * (timing_.missed + 1)) return Verdict::kDead;
    const Duration patience = side_ == Side::kFirst ? timing_.interval : timing_.interval * 3 / 2;
    if (now - heard_ < patience || now - pinged_ < timing_.interval) return Verdict::kFine;
    pinged_ = now;
    return Verdict::kPing;
  }

 private:
  HeartbeatTiming timing_;
  Side side_;
  MonoTime heard_;
  MonoTime pinged_;
  bool excused_ = false;
};

}  // namespace fantail
