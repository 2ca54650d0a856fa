#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace fantail {

/// What the bytes of a stream mean. kPlain: nothing that matters here, they are not looked at. kUtf16: of a byte order
/// that is found out.
enum class TextEncoding : std::uint8_t { kPlain, kUtf8, kUtf16, kUtf16Le, kUtf16Be, kLatin1 };

/// By the name of a flag; nothing for any other.
std::optional<TextEncoding> text_encoding_from(std::string_view name);

/// Bytes of a code unit. Units begin at multiples of that in the stream.
constexpr std::size_t unit_bytes(TextEncoding encoding) {
  return encoding >= TextEncoding::kUtf16 && encoding <= TextEncoding::kUtf16Be ? 2 : 1;
}

std::size_t find_utf16_newline(TextEncoding encoding, std::string_view units);
/// Where the first newline in `units` begins, or npos. Not for kUtf16.
inline std::size_t find_newline(TextEncoding encoding, std::string_view units) {
  return unit_bytes(encoding) == 1 ? units.find('\n') : find_utf16_newline(encoding, units);
}

bool ends_with_utf16_return(TextEncoding encoding, std::string_view units);
/// `units` without the carriage return that they end with.
inline std::string_view without_carriage_return(TextEncoding encoding, std::string_view units) {
  const std::size_t width = unit_bytes(encoding);
  const bool ends_so = width == 1 ? units.ends_with('\r') : ends_with_utf16_return(encoding, units);
  return ends_so ? units.substr(0, units.size() - width) : units;
}

/// The length of the longest beginning of `units`, at most `limit`, that does not end within a character. Never 0 for
/// a limit of 4 or more, so in what is no text it may.
std::size_t whole_characters(TextEncoding encoding, std::string_view units, std::size_t limit);

/// The byte order that a byte order mark at the start of the stream shows, or the first newline: read in the wrong
/// order that is U+0A00, which is no character. Nothing when there is neither yet.
std::optional<TextEncoding> byte_order_shown(std::string_view units, bool at_start);
/// The order in which more of the units are below 256.
TextEncoding byte_order_guessed(std::string_view units);

/// Appends `bytes` as UTF-8, kPlain as they are. What is no text becomes U+FFFD; returns how often. Not for kUtf16.
std::size_t append_utf8(std::string& out, TextEncoding encoding, std::string_view bytes);

}  // namespace fantail
