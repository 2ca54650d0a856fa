// live_reader FILE IDLE_SECONDS [--poll-us N] [--start-within SECONDS]: how old live_writer's lines are when they
// can be read in FILE, which is the file a consumer writes.
//
// Reads FILE in a loop of its own with N us of sleep (default 20, at most 50), takes the time after each read, and
// compares it with the time in each whole line. So the result counts everything between write() in the source and
// read() of the output, and this program's own sleep; run on the source itself it shows that floor.
// Ends after IDLE_SECONDS without new bytes, or if there was never one within --start-within (default 60).
// Prints one JSON line. Lines of the first second are warm-up: counted, not measured. Exit 1 if nothing was measured.

#include <fcntl.h>
#include <sys/prctl.h>
#include <time.h>  // NOLINT(modernize-deprecated-headers): clock_gettime is POSIX, not C
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>
#include <vector>

#include "tests/bench/live_line.h"

namespace {

struct Options {
  const char* path = nullptr;
  double idle_s = 0;
  double start_within_s = 60;
  std::int64_t poll_us = 20;
};

std::int64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * live::kNsPerSecond + now.tv_nsec;
}

void sleep_us(std::int64_t us) {
  const timespec pause{.tv_sec = 0, .tv_nsec = us * 1000};
  ::nanosleep(&pause, nullptr);
}

std::optional<std::int64_t> digits(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// Takes lines in the order of the file and keeps what the report needs.
class Latencies {
 public:
  void add(std::string_view line, std::int64_t seen_ns) {
    ++lines_;
    const bool shaped = line.size() == live::kLineBytes && line.starts_with(live::kMark);
    const auto counter = shaped ? digits(line.substr(live::kCounterAt, live::kCounterDigits)) : std::nullopt;
    const auto written_ns = shaped ? digits(line.substr(live::kTimeAt, live::kTimeDigits)) : std::nullopt;
    if (!counter || !written_ns) {
      ++malformed_;
      return;
    }
    if (*counter != next_) ++out_of_sequence_;
    next_ = *counter + 1;
    if (!first_written_ns_) first_written_ns_ = *written_ns;
    if (*written_ns >= *first_written_ns_ + live::kNsPerSecond) samples_ns_.push_back(seen_ns - *written_ns);
  }

  /// False if there was nothing to measure.
  bool print() {
    std::sort(samples_ns_.begin(), samples_ns_.end());
    std::printf("{\"lines\": %llu, \"measured\": %zu, \"malformed\": %llu, \"out_of_sequence\": %llu",
                static_cast<unsigned long long>(lines_), samples_ns_.size(),
                static_cast<unsigned long long>(malformed_), static_cast<unsigned long long>(out_of_sequence_));
    if (!samples_ns_.empty())
      std::printf(", \"p50_ms\": %.4f, \"p90_ms\": %.4f, \"p99_ms\": %.4f, \"p999_ms\": %.4f, \"max_ms\": %.4f",
                  percentile_ms(0.5), percentile_ms(0.9), percentile_ms(0.99), percentile_ms(0.999),
                  percentile_ms(1.0));
    std::puts("}");
    return !samples_ns_.empty();
  }

 private:
  double percentile_ms(double share) const {
    const auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(samples_ns_.size())));
    return static_cast<double>(samples_ns_[std::max<std::size_t>(rank, 1) - 1]) / 1e6;
  }

  std::vector<std::int64_t> samples_ns_;
  std::optional<std::int64_t> first_written_ns_;
  std::int64_t next_ = 0;
  std::uint64_t lines_ = 0;
  std::uint64_t malformed_ = 0;
  std::uint64_t out_of_sequence_ = 0;
};

/// Follows the file until it has been quiet for long enough; false if it never had a byte in it, or cannot be read.
bool follow(const Options& options, Latencies& latencies) {
  const auto idle_ns = static_cast<std::int64_t>(options.idle_s * 1e9);
  std::int64_t deadline = monotonic_ns() + static_cast<std::int64_t>(options.start_within_s * 1e9);
  int fd = -1;
  off_t offset = 0;
  std::vector<char> buffer(std::size_t{1} << 20U);
  std::size_t kept = 0;  // bytes of a line whose end has not been seen yet, at the front of the buffer
  while (true) {
    if (fd < 0) fd = ::open(options.path, O_RDONLY | O_CLOEXEC);
    const ssize_t got = fd < 0 ? 0 : ::pread(fd, buffer.data() + kept, buffer.size() - kept, offset);
    const std::int64_t now = monotonic_ns();
    if (got < 0 && errno != EINTR) {
      std::fprintf(stderr, "live_reader: %s: %s\n", options.path, std::generic_category().message(errno).c_str());
      return false;
    }
    if (got <= 0) {
      if (now > deadline) break;
      sleep_us(options.poll_us);
      continue;
    }
    offset += got;
    deadline = now + idle_ns;
    std::string_view text(buffer.data(), kept + static_cast<std::size_t>(got));
    for (std::size_t end = 0; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1))
      latencies.add(text.substr(0, end + 1), now);
    kept = text.size();
    std::memmove(buffer.data(), text.data(), kept);
    if (kept == buffer.size()) {
      std::fprintf(stderr, "live_reader: %s: a line longer than %zu bytes\n", options.path, buffer.size());
      return false;
    }
  }
  if (fd >= 0) ::close(fd);
  return offset > 0;
}

bool parse_positive(std::string_view text, double& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() && value > 0 && value < 1e6;
}

bool parse(std::span<char* const> args, Options& options) {
  if (args.size() < 2 || args.size() % 2 != 0) return false;
  options.path = args[0];
  if (!parse_positive(args[1], options.idle_s)) return false;
  for (std::size_t i = 2; i < args.size(); i += 2) {
    const std::string_view flag = args[i];
    double value = 0;
    if (!parse_positive(args[i + 1], value)) return false;
    if (flag == "--poll-us" && value >= 1 && value <= 50)
      options.poll_us = static_cast<std::int64_t>(value);
    else if (flag == "--start-within")
      options.start_within_s = value;
    else
      return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(std::span(argv, static_cast<std::size_t>(argc)).subspan(1), options)) {
    std::fputs("usage: live_reader FILE IDLE_SECONDS [--poll-us 1..50] [--start-within SECONDS]\n", stderr);
    return 2;
  }
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // else every sleep is 50 us longer than asked for
  Latencies latencies;
  const bool seen = follow(options, latencies);
  return latencies.print() && seen ? 0 : 1;
}
