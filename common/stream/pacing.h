#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "common/base/clock.h"

/// When to send, when to wait, when to go on without a slow receiver. Pure decisions; time comes in as an argument.
namespace fantail {

/// Token bucket that may go into debt by one message: simple, and exact over any span longer than a message.
class TokenBucket {
 public:
  /// `bytes_per_second` 0: unlimited. At most `burst_bytes` are saved up while idle.
  TokenBucket(std::uint64_t bytes_per_second, std::uint64_t burst_bytes)
      : rate_(static_cast<double>(bytes_per_second)), burst_(static_cast<double>(burst_bytes)), tokens_(burst_) {}

  bool limited() const { return rate_ > 0; }
  bool may_send(MonoTime now) {
    if (!limited()) return true;
    refill(now);
    return tokens_ > 0;
  }
  void sent(std::size_t bytes) {
    if (limited()) tokens_ -= static_cast<double>(bytes);
  }
  /// When may_send will be true again.
  MonoTime ready_at(MonoTime now) {
    if (may_send(now)) return now;
    return now + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(-tokens_ / rate_)) + 1us;
  }

 private:
  void refill(MonoTime now) {
    tokens_ = std::min(burst_, tokens_ + rate_ * std::chrono::duration<double>(now - last_).count());
    last_ = now;
  }
  double rate_;
  double burst_;
  double tokens_;  // at first burst_, so that it does not matter that `last_` is long ago
  MonoTime last_{};
};

/// How long to wait for a receiver whose queue is full. Alone, a receiver gets the whole patience at each standstill:
/// it is only slow, and waiting is what keeps its stream gapless. Beside others, the time spent waiting is a budget
/// that fills up again at a tenth of real time, so that one slow receiver costs the others at most that share.
class Patience {
 public:
  explicit Patience(Duration limit) : limit_(limit), budget_(limit) {}

  /// Sending is blocked at `now`. True: go on without the receivers that are full.
  bool exhausted(MonoTime now, std::size_t receivers) {
    if (!blocked_since_) {
      blocked_since_ = now;
      if (idle_since_) budget_ = std::min(limit_, budget_ + (now - *idle_since_) / kRefillShare);
      idle_since_.reset();
    }
    if (receivers <= 1) return now - *blocked_since_ >= limit_;
    return now - *blocked_since_ >= budget_;
  }
  /// A message was accepted.
  void sent(MonoTime now) {
    if (blocked_since_) budget_ -= std::min(budget_, now - *blocked_since_);
    blocked_since_.reset();
    if (!idle_since_) idle_since_ = now;
  }
  bool blocked() const { return blocked_since_.has_value(); }

 private:
  static constexpr int kRefillShare = 10;
  Duration limit_;
  Duration budget_;
  std::optional<MonoTime> blocked_since_;
  std::optional<MonoTime> idle_since_;
};

/// How large broadcast messages may be where the wire loses packets: a message is lost with any of its packets, so on a
/// lossy wire small ones get through and on a clean one large ones cost less. Halves on reported loss, doubles while
/// clean.
class MessageSizer {
 public:
  /// Fixed at `most` unless `adaptive`.
  MessageSizer(std::uint32_t most, bool adaptive)
      : most_(most), size_(adaptive ? std::min(most, kFirst) : most), adaptive_(adaptive) {}

  std::uint32_t bytes() const { return size_; }
  void lost(MonoTime now) {
    clean_since_ = now;
    if (!adaptive_ || (shrunk_ && now - *shrunk_ < kReactOncePer)) return;
    shrunk_ = now;
    size_ = std::max(kLeast, size_ / 2);
  }
  void sent(MonoTime now) {
    if (!adaptive_ || size_ >= most_) return;
    if (!clean_since_) clean_since_ = now;
    if (now - *clean_since_ < kGrowAfter) return;
    clean_since_ = now;
    size_ = std::min(most_, size_ * 2);
  }

 private:
  static constexpr std::uint32_t kFirst = 8 * 1024;
  static constexpr std::uint32_t kLeast = 1200;     // one packet of an ordinary Ethernet, headers included
  static constexpr Duration kReactOncePer = 250ms;  // reports of one burst of losses come spread out
  static constexpr Duration kGrowAfter = 150ms;     // longer than a report of loss takes
  std::uint32_t most_;
  std::uint32_t size_;
  bool adaptive_;
  std::optional<MonoTime> clean_since_;
  std::optional<MonoTime> shrunk_;
};

/// `auto` compression: none while the wire keeps up; zstd while waiting for the wire costs more than compressing would.
/// Decides once per window from how much of it was spent blocked and how fast compression was when it was last used.
class CompressionPolicy {
 public:
  bool compress() const { return compress_; }

  void sent(std::size_t raw_bytes) { window_bytes_ += raw_bytes; }
  void waited(Duration blocked) { window_blocked_ += blocked; }
  void compressed(std::size_t raw_bytes, Duration took) {
    if (took <= Duration::zero()) return;
    const double speed = static_cast<double>(raw_bytes) / std::chrono::duration<double>(took).count();
    speed_ = 0.9 * speed_ + 0.1 * speed;
  }
  void tick(MonoTime now) {
    if (!window_start_) window_start_ = now;
    const Duration span = now - *window_start_;
    if (span < kWindow) return;
    const double seconds = std::chrono::duration<double>(span).count();
    const bool wire_binds = window_blocked_ * 5 > span;
    if (!compress_) {
      // Compressing pays when it is faster than the wire; at a wire faster than that it would only burn processor time.
      const double wire_speed = static_cast<double>(window_bytes_) / seconds;
      compress_ = wire_binds && wire_speed < kWorthwhile * speed_;
      since_ = now;
    } else if (!wire_binds && now - since_ > kProbe) {
      compress_ = false;
    }
    window_start_ = now;
    window_bytes_ = 0;
    window_blocked_ = Duration::zero();
  }

 private:
  static constexpr Duration kWindow = 20ms;
  static constexpr Duration kProbe = 1s;  ///< how long to keep compressing before trying without
  static constexpr double kWorthwhile = 0.8;
  bool compress_ = false;
  double speed_ = 400e6;  ///< raw bytes per second; replaced by what is measured
  std::optional<MonoTime> window_start_;
  MonoTime since_{};
  std::uint64_t window_bytes_ = 0;
  Duration window_blocked_{};
};

}  // namespace fantail
