#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "common/base/result.h"

/// JSON values as state keeps them. Heavy to compile: include it in .cc files, and nlohmann/json_fwd.hpp in headers.
namespace fantail::state {

using Json = nlohmann::json;

inline constexpr std::size_t kMaxDepth = 128;  ///< of arrays and objects within each other

/// One JSON text (RFC 8259) and nothing behind it. kInvalid with a sentence: syntax, invalid UTF-8, numbers beyond what
/// a double holds, more than kMaxDepth levels. Integers beyond 64 bits become doubles.
Result<Json> parse_json(std::string_view text);

/// Compact, keys of objects in order: equal values give equal texts, but for 1 and 1.0.
std::string to_text(const Json& value);
/// The text of a JSON string.
std::string json_string(std::string_view text);

/// What counts as true in Python: not null, false, 0, "", [] or {}.
bool is_truthy(const Json& value);

}  // namespace fantail::state
