#pragma once

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

  PeerHealth(HeartbeatTiming timing, MonoTime now) : timing_(timing), heard_(now), pinged_(now) {}

  void heard(MonoTime now) { heard_ = now; }
  Duration silent_for(MonoTime now) const { return now - heard_; }
  /// kPing at most once per interval.
  Verdict check(MonoTime now) {
    if (now - heard_ >= timing_.interval * (timing_.missed + 1)) return Verdict::kDead;
    if (now - heard_ < timing_.interval || now - pinged_ < timing_.interval) return Verdict::kFine;
    pinged_ = now;
    return Verdict::kPing;
  }

 private:
  HeartbeatTiming timing_;
  MonoTime heard_;
  MonoTime pinged_;
};

}  // namespace fantail
