// live_writer FILE RATE SECONDS: appends RATE lines a second to FILE, one write() each, for SECONDS.
//
// Every line carries a counter and the CLOCK_MONOTONIC time just before its write(), so that live_reader can tell
// how long it took until the line was readable elsewhere on this machine. Prints one JSON line at the end; `late_us`
// is how far behind its schedule a line was written at worst (a large value: this machine could not keep the pace).

#include <fcntl.h>
#include <sys/prctl.h>
#include <time.h>  // NOLINT(modernize-deprecated-headers): clock_nanosleep is POSIX, not C
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <system_error>

#include "tests/bench/live_line.h"

namespace {

constexpr std::string_view kText =
    "web-07 shop[2314]: INFO GET /api/v2/orders/52496/items status=200 ms=25 agent=\"Mozilla/5.0 (X11; Linux x86_64; "
    "rv:128.0) Gecko/20100101 Firefox/128.0\" ref=\"https://shop.example.com/catalogue\"";

timespec to_timespec(std::int64_t ns) {
  return {.tv_sec = ns / live::kNsPerSecond, .tv_nsec = ns % live::kNsPerSecond};
}

std::int64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * live::kNsPerSecond + now.tv_nsec;
}

void sleep_until(std::int64_t ns) {
  const timespec at = to_timespec(ns);
  while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) {
  }
}

/// Zero-padded decimal; a value with more digits loses the leading ones.
void put_digits(char* to, std::size_t digits, std::uint64_t value) {
  for (std::size_t i = digits; i-- > 0; value /= 10) to[i] = static_cast<char>('0' + value % 10);
}

bool parse(const char* text, std::int64_t& value) {
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, value);
  return error == std::errc{} && stop == end && value > 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::int64_t lines_per_s = 0;
  std::int64_t seconds = 0;
  if (argc != 4 || !parse(argv[2], lines_per_s) || !parse(argv[3], seconds) || lines_per_s > 1'000'000 ||
      seconds > 100'000) {
    std::fputs("usage: live_writer FILE LINES_PER_SECOND SECONDS\n", stderr);
    return 2;
  }
  const int fd = ::open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) {
    std::fprintf(stderr, "live_writer: %s: %s\n", argv[1], std::generic_category().message(errno).c_str());
    return 1;
  }
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // the default of 50 us would be half a line's interval

  std::array<char, live::kLineBytes> line{};
  line.fill(' ');
  std::memcpy(line.data(), live::kMark, live::kMarkBytes);
  std::memcpy(&line[live::kTextAt], kText.data(), std::min(kText.size(), line.size() - live::kTextAt - 1));
  line.back() = '\n';

  const std::int64_t count = lines_per_s * seconds;
  const std::int64_t start = monotonic_ns();
  std::int64_t late_ns = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t due =
        start + i / lines_per_s * live::kNsPerSecond + i % lines_per_s * live::kNsPerSecond / lines_per_s;
    sleep_until(due);
    put_digits(&line[live::kCounterAt], live::kCounterDigits, static_cast<std::uint64_t>(i));
    const std::int64_t now = monotonic_ns();
    late_ns = std::max(late_ns, now - due);
    put_digits(&line[live::kTimeAt], live::kTimeDigits, static_cast<std::uint64_t>(now));
    const ssize_t put = ::write(fd, line.data(), line.size());
    if (put != static_cast<ssize_t>(line.size())) {  // a part of a line would spoil the file: stop and say so
      std::fprintf(stderr, "live_writer: %s: %s\n", argv[1],
                   put < 0 ? std::generic_category().message(errno).c_str() : "short write");
      return 1;
    }
  }
  const double took_s = static_cast<double>(monotonic_ns() - start) / 1e9;
  std::printf("{\"lines\": %lld, \"seconds\": %.3f, \"late_us\": %.1f}\n", static_cast<long long>(count), took_s,
              static_cast<double>(late_ns) / 1e3);
  return ::close(fd) == 0 ? 0 : 1;
}
