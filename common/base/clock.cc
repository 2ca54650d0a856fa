#include "common/base/clock.h"

#include <array>
#include <cstdio>
#include <ctime>

namespace fantail {
namespace {

struct Broken {
  std::tm utc{};
  long micros = 0;
};

Broken break_down(WallTime time) {
  constexpr std::int64_t kNsPerSecond = 1'000'000'000;
  std::int64_t seconds = time.ns / kNsPerSecond;
  std::int64_t rest = time.ns % kNsPerSecond;
  if (rest < 0) {
    rest += kNsPerSecond;
    --seconds;
  }
  Broken out;
  const std::time_t t = seconds;
  ::gmtime_r(&t, &out.utc);
  out.micros = static_cast<long>(rest / 1000);
  return out;
}

std::string format(const char* pattern, const Broken& time) {
  std::array<char, 64> text{};
  const auto n = std::strftime(text.data(), text.size(), pattern, &time.utc);
  return {text.data(), n};
}

}  // namespace

WallTime wall_now() {
  const auto since = std::chrono::system_clock::now().time_since_epoch();
  return {std::chrono::duration_cast<std::chrono::nanoseconds>(since).count()};
}

std::string to_iso8601(WallTime time) {
  const Broken b = break_down(time);
  std::array<char, 16> fraction{};
  std::snprintf(fraction.data(), fraction.size(), ".%06ldZ", b.micros);
  return format("%Y-%m-%dT%H:%M:%S", b) + fraction.data();
}

std::string to_compact_utc(WallTime time) { return format("%Y%m%dT%H%M%SZ", break_down(time)); }

std::string to_date(WallTime time) { return format("%Y-%m-%d", break_down(time)); }

}  // namespace fantail
