#include "consumer/progress.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "common/base/text.h"

namespace fantail {
namespace {

constexpr std::uint64_t kCatchUpBytes = 4 * 1024 * 1024;  // less is over before a bar would help
constexpr int kBarWidth = 24;

}  // namespace

std::string Progress::line(const StreamSubscriber::Overview& overview, const SubscriberCounters& counters,
                           MonoTime now) {
  const std::uint64_t delivered = counters.bytes_delivered;
  const double seconds = std::chrono::duration<double>(now - last_).count();
  if (last_ != MonoTime{} && seconds > 0) {
    const double current = static_cast<double>(delivered - last_bytes_) / seconds;
    rate_ = rate_ == 0 ? current : 0.7 * rate_ + 0.3 * current;
  }
  last_ = now;
  last_bytes_ = delivered;

  std::string out = std::to_string(overview.nodes) + " nodes  " + std::to_string(overview.streams) + " streams  " +
                    human_bytes(rate_) + "/s  behind " + human_bytes(static_cast<double>(overview.behind_bytes)) +
                    "  lost " + human_bytes(static_cast<double>(counters.lost_bytes));
  if (!catching_up_ && overview.behind_bytes > kCatchUpBytes) {
    catching_up_ = true;
    catch_up_from_ = delivered;
  } else if (catching_up_ && overview.behind_bytes == 0) {
    catching_up_ = false;
  }
  if (!catching_up_) return out;
  const double done = static_cast<double>(delivered - catch_up_from_);
  const double share = done / std::max(1.0, done + static_cast<double>(overview.behind_bytes));
  const int filled = static_cast<int>(share * kBarWidth);
  out += "  [" + std::string(static_cast<std::size_t>(filled), '#') +
         std::string(static_cast<std::size_t>(kBarWidth - filled), '.') + "] " +
         std::to_string(static_cast<int>(share * 100)) + "%";
  if (rate_ > 0) {
    const auto left = static_cast<long>(static_cast<double>(overview.behind_bytes) / rate_);
    std::array<char, 32> eta{};
    std::snprintf(eta.data(), eta.size(), "  %ld:%02ld to go", left / 60, left % 60);
    out += eta.data();
  }
  return out;
}

}  // namespace fantail
