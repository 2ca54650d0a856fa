#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/result.h"

/// JSON values. Heavy to compile: include it in .cc files, and nlohmann/json_fwd.hpp in headers.
namespace fantail {

using Json = nlohmann::json;

inline constexpr std::size_t kMaxDepth = 128;             ///< of arrays and objects within each other, in one value
inline constexpr std::size_t kMaxMessageDepth = 128 + 8;  ///< of what values are wrapped in: requests, journal lines

/// One JSON text (RFC 8259) and nothing behind it. kInvalid with a sentence: syntax, invalid UTF-8, numbers beyond what
/// a double holds, more than `max_depth` levels. Integers beyond 64 bits become doubles.
Result<Json> parse_json(std::string_view text, std::size_t max_depth = kMaxDepth);
/// Whether a JSON text has more than `limit` levels of brackets.
bool deeper_than(std::string_view text, std::size_t limit);

/// A member that one object of a valid JSON text has more than once: parse_json() keeps the last one.
std::optional<std::string> repeated_member(std::string_view text);

/// Compact, keys of objects in order: equal values give equal texts, but for 1 and 1.0.
std::string to_text(const Json& value);
/// The text of a JSON string.
std::string json_string(std::string_view text);

}  // namespace fantail
