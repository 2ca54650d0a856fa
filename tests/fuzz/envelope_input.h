#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "common/base/digest.h"

namespace fantail::test {

/// The three frames of a message in one fuzz input: topic length (1 byte), header length (2 bytes, little endian),
/// topic, header, payload. Lengths beyond the end mean "as much as there is".
struct EnvelopeInput {
  std::string_view topic;
  std::span<const std::byte> header;
  std::span<const std::byte> payload;

  static EnvelopeInput split(std::span<const std::byte> bytes) {
    const auto take = [&](std::size_t n) {
      const auto part = bytes.first(std::min(n, bytes.size()));
      bytes = bytes.subspan(part.size());
      return part;
    };
    const auto number = [&](std::size_t width) {
      std::size_t n = 0;
      std::size_t shift = 0;
      for (const std::byte b : take(width)) {
        n |= std::to_integer<std::size_t>(b) << shift;
        shift += 8;
      }
      return n;
    };
    const std::size_t topic_bytes = number(1);
    const std::size_t header_bytes = number(2);
    EnvelopeInput input;
    input.topic = as_text(take(topic_bytes));
    input.header = take(header_bytes);
    input.payload = bytes;
    return input;
  }

  std::vector<std::byte> join() const {
    std::vector<std::byte> out = {static_cast<std::byte>(topic.size()), static_cast<std::byte>(header.size() & 0xFF),
                                  static_cast<std::byte>(header.size() >> 8)};
    for (const auto part : {as_bytes(topic), header, payload}) out.insert(out.end(), part.begin(), part.end());
    return out;
  }
};

}  // namespace fantail::test
