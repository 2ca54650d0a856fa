#pragma once

#include <algorithm>

#include "common/base/clock.h"

namespace fantail {

/// Whether to look again and again for what is about to come, for a moment, before sleeping. Two programs that answer
/// each other pay for a wake-up with each message, and in a virtual machine an idle core is slow to wake; who looks
/// yields the core meanwhile. Learns from each wait: only where the last thing came soon is the next expected soon,
/// and who looked in vain does not look the next 1, 3, 7, ... 1023 times. docs/decisions/0007 has what it brings. One
/// per loop; owns no clock.
class SpinPolicy {
 public:
  static constexpr Duration kLimit = 150us;  ///< the longest look
  static constexpr Duration kSoon = 400us;   ///< a wait that was no longer, its wake-up included, makes a look worth it

  /// How long to look before sleeping; zero: not at all. Followed by waited().
  Duration look() {
    looked_ = soon_ && skip_ == 0;
    return looked_ ? kLimit : Duration::zero();
  }
  /// The wait that look() was asked for took so long in all.
  void waited(Duration took) {
    if (looked_ && took > kLimit) {
      penalty_ = std::min(2 * penalty_ + 1, kMostSkipped);
      skip_ = penalty_;
    } else if (looked_) {
      penalty_ = 0;
    } else if (skip_ > 0) {
      --skip_;
    }
    soon_ = took <= kSoon;
  }

 private:
  static constexpr int kMostSkipped = 1023;
  bool soon_ = false;
  bool looked_ = false;
  int penalty_ = 0;
  int skip_ = 0;
};

}  // namespace fantail
