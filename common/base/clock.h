#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace fantail {

using namespace std::chrono_literals;  // NOLINT: durations are written with their unit everywhere

/// Time for deadlines and intervals. Deciding code takes it as an argument and never asks a clock.
using MonoTime = std::chrono::steady_clock::time_point;
using Duration = std::chrono::steady_clock::duration;

inline MonoTime mono_now() { return std::chrono::steady_clock::now(); }

/// Nanoseconds since 1970-01-01 UTC: for people and file names, never for deadlines.
struct WallTime {
  std::int64_t ns = 0;
  auto operator<=>(const WallTime&) const = default;
};

WallTime wall_now();
/// "2026-11-22T17:04:05.123456Z"
std::string to_iso8601(WallTime time);
/// "20261122T170405Z", usable in file names.
std::string to_compact_utc(WallTime time);
/// "2026-11-22"
std::string to_date(WallTime time);

inline std::int64_t to_milliseconds(Duration d) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(d).count();
}

}  // namespace fantail
