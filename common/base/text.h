#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace fantail {

/// Whether it is well-formed UTF-8 (Unicode 15, table 3-7).
bool is_utf8(std::string_view text);

/// Appends `bytes` as base64 (RFC 4648, section 4), with padding.
void append_base64(std::string& out, std::string_view bytes);
/// The inverse; nothing for anything else.
std::optional<std::string> from_base64(std::string_view text);

/// "1.5 MB"
std::string human_bytes(double bytes);

}  // namespace fantail
