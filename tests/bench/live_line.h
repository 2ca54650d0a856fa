#pragma once

#include <cstddef>
#include <cstdint>

/// What live_writer writes and live_reader reads, for the `live` row of scripts/bench-end-to-end.
/// One line is kLineBytes long with its newline:
///
///   live <counter, 10 digits> <CLOCK_MONOTONIC in ns just before write(), 19 digits> <text that looks like a log>\n
namespace live {

inline constexpr std::size_t kLineBytes = 203;
inline constexpr char kMark[] = "live ";
inline constexpr std::size_t kMarkBytes = sizeof kMark - 1;
inline constexpr std::size_t kCounterDigits = 10;
inline constexpr std::size_t kTimeDigits = 19;
inline constexpr std::size_t kCounterAt = kMarkBytes;
inline constexpr std::size_t kTimeAt = kCounterAt + kCounterDigits + 1;
inline constexpr std::size_t kTextAt = kTimeAt + kTimeDigits + 1;

inline constexpr std::int64_t kNsPerSecond = 1'000'000'000;

}  // namespace live
