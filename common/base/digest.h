#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>

namespace fantail {

/// XXH3-64 of the bytes. Detects accidents, not forgery.
std::uint64_t digest(std::span<const std::byte> bytes);

/// XXH3-64 of the parts as if they were one piece.
std::uint64_t digest(std::initializer_list<std::span<const std::byte>> parts);

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}
inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace fantail
