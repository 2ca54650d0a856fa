#include "consumer/text_encoding.h"

#include <algorithm>
#include <cstring>

#include "common/base/text.h"

namespace fantail {
namespace {

constexpr char16_t kByteOrderMark = 0xFEFF;
constexpr char32_t kReplacement = 0xFFFD;

unsigned char byte_at(std::string_view bytes, std::size_t at) { return static_cast<unsigned char>(bytes[at]); }

char16_t unit_at(TextEncoding encoding, std::string_view units, std::size_t at) {
  const unsigned first = byte_at(units, at);
  const unsigned second = byte_at(units, at + 1);
  return static_cast<char16_t>(encoding == TextEncoding::kUtf16Le ? second << 8 | first : first << 8 | second);
}

bool is_high_surrogate(char16_t unit) { return unit >= 0xD800 && unit <= 0xDBFF; }
bool is_low_surrogate(char16_t unit) { return unit >= 0xDC00 && unit <= 0xDFFF; }
bool is_continuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

void append_character(std::string& out, char32_t c) {
  const auto byte = [&](char32_t value) { out += static_cast<char>(value); };
  if (c < 0x80) {
    byte(c);
  } else if (c < 0x800) {
    byte(0xC0 | c >> 6);
    byte(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    byte(0xE0 | c >> 12);
    byte(0x80 | (c >> 6 & 0x3F));
    byte(0x80 | (c & 0x3F));
  } else {
    byte(0xF0 | c >> 18);
    byte(0x80 | (c >> 12 & 0x3F));
    byte(0x80 | (c >> 6 & 0x3F));
    byte(0x80 | (c & 0x3F));
  }
}

std::size_t append_utf16(std::string& out, TextEncoding encoding, std::string_view bytes) {
  std::size_t replaced = 0;
  const std::size_t even = bytes.size() / 2 * 2;
  for (std::size_t i = 0; i < even; i += 2) {
    const char16_t unit = unit_at(encoding, bytes, i);
    if (is_high_surrogate(unit) && i + 2 < even && is_low_surrogate(unit_at(encoding, bytes, i + 2))) {
      i += 2;
      append_character(out, 0x10000U + ((unit - 0xD800U) << 10) + (unit_at(encoding, bytes, i) - 0xDC00U));
    } else if (is_high_surrogate(unit) || is_low_surrogate(unit)) {
      append_character(out, kReplacement);
      ++replaced;
    } else {
      append_character(out, unit);
    }
  }
  if (even < bytes.size()) {
    append_character(out, kReplacement);
    ++replaced;
  }
  return replaced;
}

/// The length of the character that `bytes` begin with (Unicode 15, table 3-7). Of what is no character `valid` is
/// false, and the length is that of the longest beginning of one, so that U+FFFD stands for as much as in browsers.
std::size_t utf8_length(std::string_view bytes, bool& valid) {
  const unsigned char lead = byte_at(bytes, 0);
  valid = true;
  if (lead < 0x80) return 1;
  valid = false;
  if (lead < 0xC2 || lead > 0xF4) return 1;
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (std::size_t i = 1; i < length; ++i) {
    if (i == bytes.size() || byte_at(bytes, i) < low || byte_at(bytes, i) > high) return i;
    low = 0x80;
    high = 0xBF;
  }
  valid = true;
  return length;
}

std::size_t append_repaired_utf8(std::string& out, std::string_view bytes) {
  if (is_utf8(bytes)) {
    out += bytes;
    return 0;
  }
  std::size_t replaced = 0;
  while (!bytes.empty()) {
    bool valid = false;
    const std::size_t length = utf8_length(bytes, valid);
    if (valid) {
      out += bytes.substr(0, length);
    } else {
      append_character(out, kReplacement);
      ++replaced;
    }
    bytes.remove_prefix(length);
  }
  return replaced;
}

}  // namespace

std::optional<TextEncoding> text_encoding_from(std::string_view name) {
  static constexpr std::pair<std::string_view, TextEncoding> kNames[] = {
      {"plain", TextEncoding::kPlain},      {"utf-8", TextEncoding::kUtf8},       {"utf-16", TextEncoding::kUtf16},
      {"utf-16le", TextEncoding::kUtf16Le}, {"utf-16be", TextEncoding::kUtf16Be}, {"latin-1", TextEncoding::kLatin1}};
  for (const auto& [known, encoding] : kNames) {
    if (known == name) return encoding;
  }
  return std::nullopt;
}

std::size_t find_utf16_newline(TextEncoding encoding, std::string_view units) {
  const std::size_t low = encoding == TextEncoding::kUtf16Le ? 0 : 1;  // of the bytes of a unit
  for (auto at = units.find('\n'); at != std::string_view::npos; at = units.find('\n', at + 1)) {
    if (at % 2 == low && units[at ^ 1] == '\0') return at - low;
  }
  return std::string_view::npos;
}

bool ends_with_utf16_return(TextEncoding encoding, std::string_view units) {
  return units.size() >= 2 && unit_at(encoding, units, units.size() - 2) == u'\r';
}

std::size_t whole_characters(TextEncoding encoding, std::string_view units, std::size_t limit) {
  std::size_t length = std::min(limit, units.size());
  if (unit_bytes(encoding) == 2) {
    length -= length % 2;
    if (length >= 4 && is_high_surrogate(unit_at(encoding, units, length - 2))) length -= 2;
  } else if (encoding == TextEncoding::kUtf8) {
    // The last character begins at most 3 bytes before the end; is all of it there?
    for (std::size_t back = 1; back <= std::min<std::size_t>(3, length); ++back) {
      const unsigned char byte = byte_at(units, length - back);
      if (is_continuation(byte)) continue;
      const std::size_t needed = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
      if (needed > back && length > back) length -= back;
      break;
    }
  }
  return length;
}

std::optional<TextEncoding> byte_order_shown(std::string_view units, bool at_start) {
  if (at_start && units.size() >= 2) {
    if (unit_at(TextEncoding::kUtf16Le, units, 0) == kByteOrderMark) return TextEncoding::kUtf16Le;
    if (unit_at(TextEncoding::kUtf16Be, units, 0) == kByteOrderMark) return TextEncoding::kUtf16Be;
  }
  const auto little = find_newline(TextEncoding::kUtf16Le, units);
  const auto big = find_newline(TextEncoding::kUtf16Be, units);
  if (little == big) return std::nullopt;  // there is none
  return little < big ? TextEncoding::kUtf16Le : TextEncoding::kUtf16Be;
}

TextEncoding byte_order_guessed(std::string_view units) {
  std::size_t zeros[2] = {0, 0};
  for (std::size_t i = 0; i < units.size(); ++i) zeros[i % 2] += units[i] == '\0' ? 1 : 0;
  return zeros[0] > zeros[1] ? TextEncoding::kUtf16Be : TextEncoding::kUtf16Le;
}

std::size_t append_utf8(std::string& out, TextEncoding encoding, std::string_view bytes) {
  switch (encoding) {
    case TextEncoding::kUtf16Le:
    case TextEncoding::kUtf16Be: return append_utf16(out, encoding, bytes);
    case TextEncoding::kUtf8: return append_repaired_utf8(out, bytes);
    case TextEncoding::kLatin1:
      for (std::size_t i = 0; i < bytes.size(); ++i) append_character(out, byte_at(bytes, i));
      return 0;
    case TextEncoding::kPlain:
    case TextEncoding::kUtf16: break;
  }
  out += bytes;
  return 0;
}

}  // namespace fantail
