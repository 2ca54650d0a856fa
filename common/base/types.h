#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace fantail {

/// Bytes from the start of one stream. Offsets of different streams are unrelated, so only differences and
/// displacements are offered, no arithmetic between offsets.
struct FileOffset {
  std::uint64_t raw = 0;
  auto operator<=>(const FileOffset&) const = default;
  FileOffset operator+(std::uint64_t bytes) const { return {raw + bytes}; }
  std::uint64_t operator-(FileOffset earlier) const { return raw - earlier.raw; }
};

/// [from, to) of one stream.
struct ByteRange {
  FileOffset from;
  FileOffset to;
  auto operator<=>(const ByteRange&) const = default;
  bool empty() const { return to <= from; }
  std::uint64_t bytes() const { return empty() ? 0 : to - from; }
};

/// A random 128-bit name. The tag keeps names of different things apart.
template <class Tag>
struct Id128 {
  std::uint64_t hi = 0;
  std::uint64_t lo = 0;
  auto operator<=>(const Id128&) const = default;
  explicit operator bool() const { return (hi | lo) != 0; }
};
using StreamId = Id128<struct StreamTag>;      ///< one incarnation of one file, or one journal
using NodeId = Id128<struct NodeTag>;          ///< one producer's state directory
using InstanceId = Id128<struct InstanceTag>;  ///< one run of one process

namespace detail {
std::array<std::uint64_t, 2> random_words();
std::string to_hex(std::uint64_t hi, std::uint64_t lo);
std::optional<std::array<std::uint64_t, 2>> words_from_hex(std::string_view hex);
}  // namespace detail

/// A fresh random id from the kernel's generator, never zero.
template <class Id>
Id random_id() {
  const auto words = detail::random_words();
  return Id{words[0], words[1]};
}

/// 32 lower-case hexadecimal digits.
template <class Tag>
std::string to_string(const Id128<Tag>& id) {
  return detail::to_hex(id.hi, id.lo);
}
/// The first 8 of them, for file names and people.
template <class Tag>
std::string short_hex(const Id128<Tag>& id) {
  return to_string(id).substr(0, 8);
}
/// The inverse of to_string; nothing for anything but exactly 32 hexadecimal digits.
template <class Id>
std::optional<Id> id_from_hex(std::string_view hex) {
  const auto words = detail::words_from_hex(hex);
  if (!words) return std::nullopt;
  return Id{(*words)[0], (*words)[1]};
}

}  // namespace fantail

template <class Tag>
struct std::hash<fantail::Id128<Tag>> {
  std::size_t operator()(const fantail::Id128<Tag>& id) const noexcept {
    return static_cast<std::size_t>(id.lo);  // random already
  }
};
