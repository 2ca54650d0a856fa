#pragma once

#include <functional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "common/wire/codec.h"

namespace fantail::test {

/// One good message of some kind, as its three frames.
struct WireSample {
  std::string name;  ///< letters only
  wire::Kind kind;
  std::string topic;  ///< empty on the control link
  std::vector<std::byte> header;
  std::vector<std::byte> payload;
  /// Decodes a body and says whether the result is the value that this sample was made from.
  std::function<Result<bool>(std::span<const std::byte> body, std::span<const std::byte> payload)> is_original;
};

inline std::ostream& operator<<(std::ostream& out, const WireSample& sample) { return out << sample.name; }

/// Every kind at least once, with no field at its default.
std::vector<WireSample> wire_samples();

}  // namespace fantail::test
