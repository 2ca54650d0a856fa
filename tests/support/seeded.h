#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"

namespace fantail::test {

/// Chance that can be had again: the same seed, the same run.
class Chance {
 public:
  explicit Chance(std::uint64_t seed) : generator_(seed) {}

  bool with(double probability) { return std::uniform_real_distribution<double>(0, 1)(generator_) < probability; }
  /// From `least` to `most`, both included.
  std::size_t between(std::size_t least, std::size_t most) {
    return std::uniform_int_distribution<std::size_t>(least, most)(generator_);
  }
  Duration between(Duration least, Duration most) {
    return Duration(std::uniform_int_distribution<Duration::rep>(least.count(), most.count())(generator_));
  }
  template <class Container>
  auto& one_of(Container& things) {
    return things[between(std::size_t{0}, things.size() - 1)];
  }
  /// Lines of text, about `bytes` long: exactly that many, and only by chance the same twice.
  std::string text(std::size_t bytes) {
    std::string out;
    while (out.size() < bytes) {
      out += std::to_string(generator_());
      out += with(0.1) ? '\n' : ' ';
    }
    out.resize(bytes);
    return out;
  }

 private:
  std::mt19937_64 generator_;
};

/// The seeds of a randomized test: `count` from 1 on, or the one that FANTAIL_SEED asks for.
inline std::vector<std::uint64_t> seeds(std::uint64_t count) {
  if (const char* wanted = std::getenv("FANTAIL_SEED"); wanted != nullptr && *wanted != '\0') {
    return {std::strtoull(wanted, nullptr, 10)};
  }
  std::vector<std::uint64_t> out(count);
  for (std::uint64_t i = 0; i < count; ++i) out[i] = i + 1;
  return out;
}

/// What to say when a seed fails.
inline std::string replay(std::uint64_t seed) {
  return "seed " + std::to_string(seed) + "; run it again with FANTAIL_SEED=" + std::to_string(seed);
}

}  // namespace fantail::test
