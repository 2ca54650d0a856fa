#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string_view>

namespace fantail::state {

/// What can be asked of one value, in transactions and by watchers alike. Null operands and absent keys are ordinary
/// cases: nothing here fails.
enum class Condition {
  kEqual,
  kNotEqual,  ///< absent counts as different from every value
  kLess,      ///< numbers with numbers, strings with strings; else false
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kTruthy,     ///< present, and true as in Python: not null, false, 0, "", [] or {}
  kFalsy,      ///< absent, or not truthy
  kNull,       ///< present and null
  kNotNull,    ///< present and not null
  kAvailable,  ///< present
  kAbsent,
};

/// "equal", "not-equal", "less", ... as in requests and flags.
std::optional<Condition> condition_from(std::string_view name);
std::string_view to_string(Condition condition);
/// Every name, separated by ", ": for messages.
std::string_view condition_names();
/// Whether it compares with an operand.
bool takes_operand(Condition condition);

/// `value`: nullptr where the key is absent. `operand` is used where takes_operand() says so.
bool holds(Condition condition, const nlohmann::json* value, const nlohmann::json& operand);

}  // namespace fantail::state
