#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "common/base/clock.h"
#include "common/base/types.h"

namespace fantail {

struct RepairTiming {
  Duration repair_after = 250ms;  ///< a head shows bytes, but the stream stands still: ask after this long
  Duration max_jitter = 0ms;  ///< multicast: a random part of this before asking, so that consumers do not ask in step
  Duration answer_within = 2s;   ///< no sign of an answer for this long: ask again
  Duration retry_first = 200ms;  ///< asked, and nothing came of it: wait, doubling up to retry_max
  Duration retry_max = 5s;
  std::uint64_t window_bytes = 4 * 1024 * 1024;  ///< most that is asked for at once
};

/// What is known to be missing at the front of a stream.
struct Gap {
  ByteRange range;
  /// A later broadcast proves that the broadcast has passed it; else only a head tells of it, and the bytes may still
  /// be on their way.
  bool passed = false;
};

/// Decides when to ask for what is missing, at most one request in flight. One per stream; pure.
class GapDetector {
 public:
  explicit GapDetector(RepairTiming timing) : timing_(timing) {}

  /// The stream's cursor moved.
  void progressed(MonoTime now) {
    progress_ = now;
    gap_since_.reset();
    attempts_ = 0;
    retry_at_.reset();
  }

  /// The range to ask for now, if any. `random` in [0, 1) spreads consumers. Call asked() when the request left.
  std::optional<ByteRange> due(const Gap& gap, MonoTime now, double random) {
    if (gap.range.empty()) {
      gap_since_.reset();
      retry_at_.reset();
      attempts_ = 0;
      return std::nullopt;
    }
    if (!gap_since_) {
      gap_since_ = now;
      jitter_ = std::chrono::duration_cast<Duration>(timing_.max_jitter * random);
    }
    if (in_flight_) {
      if (now - heard_ < timing_.answer_within) return std::nullopt;
      unanswered(now);
    }
    if (retry_at_ && now < *retry_at_) return std::nullopt;
    const MonoTime standing_since = progress_ ? std::max(*gap_since_, *progress_) : *gap_since_;
    const Duration grace = gap.passed ? jitter_ : timing_.repair_after + jitter_;
    if (!retry_at_ && now - standing_since < grace) return std::nullopt;
    const std::uint64_t bytes = std::min(gap.range.bytes(), timing_.window_bytes);
    return ByteRange{gap.range.from, gap.range.from + bytes};
  }

  void asked(std::uint64_t request, ByteRange range, MonoTime now) {
    in_flight_ = Flight{request, range};
    heard_ = now;
  }
  /// Part of the answer arrived.
  void heard(MonoTime now) { heard_ = now; }
  /// The answer is complete. Without progress in between, asking again waits.
  void answered(MonoTime now, bool progressed_meanwhile) {
    in_flight_.reset();
    if (progressed_meanwhile) {
      // More of the same gap: go on at once.
      retry_at_ = now;
      attempts_ = 0;
    } else {
      back_off(now);
    }
  }
  /// Whether the request in flight has to be given up, because its answer stays out; it is forgotten then.
  bool expired(MonoTime now) {
    if (!in_flight_ || now - heard_ < timing_.answer_within) return false;
    in_flight_.reset();
    return true;
  }
  /// The request was lost with its peer.
  void abandoned() { in_flight_.reset(); }

  struct Flight {
    std::uint64_t request = 0;
    ByteRange range;
  };
  const std::optional<Flight>& in_flight() const { return in_flight_; }

 private:
  void unanswered(MonoTime now) {
    in_flight_.reset();
    back_off(now);
  }
  void back_off(MonoTime now) {
    const int doublings = attempts_ < 6 ? attempts_ : 6;
    retry_at_ = now + std::min(timing_.retry_max, timing_.retry_first * (1 << doublings));
    ++attempts_;
  }

  RepairTiming timing_;
  std::optional<Flight> in_flight_;
  std::optional<MonoTime> gap_since_;
  std::optional<MonoTime> progress_;
  std::optional<MonoTime> retry_at_;
  MonoTime heard_{};
  Duration jitter_{};
  int attempts_ = 0;
};

}  // namespace fantail
