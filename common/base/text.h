#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace fantail {

/// Whether it is well-formed UTF-8 (Unicode 15, table 3-7).
bool is_utf8(std::string_view text);
/// At most so many bytes of a text, and no part of a character at their end.
std::string_view utf8_prefix(std::string_view text, std::size_t bytes);

/// Appends `bytes` as base64 (RFC 4648, section 4), with padding.
void append_base64(std::string& out, std::string_view bytes);
/// The inverse; nothing for anything else.
std::optional<std::string> from_base64(std::string_view text);

/// A size such as 4096, 64K, 16MiB or 1G, all powers of 1024; nothing for anything else.
std::optional<std::uint64_t> bytes_from(const std::string& text);

/// "1.5 MB"
std::string human_bytes(double bytes);

}  // namespace fantail
