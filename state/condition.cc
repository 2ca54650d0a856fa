#include "state/condition.h"

#include <algorithm>
#include <array>

#include "common/json/json.h"

namespace fantail::state {
namespace {

struct Named {
  std::string_view name;
  Condition condition;
};
constexpr std::array<Named, 12> kNames = {{{"equal", Condition::kEqual},
                                           {"not-equal", Condition::kNotEqual},
                                           {"less", Condition::kLess},
                                           {"less-equal", Condition::kLessEqual},
                                           {"greater", Condition::kGreater},
                                           {"greater-equal", Condition::kGreaterEqual},
                                           {"truthy", Condition::kTruthy},
                                           {"falsy", Condition::kFalsy},
                                           {"null", Condition::kNull},
                                           {"not-null", Condition::kNotNull},
                                           {"available", Condition::kAvailable},
                                           {"absent", Condition::kAbsent}}};

/// Only what has an order: JSON does not say how a number compares with a string.
bool comparable(const Json& a, const Json& b) {
  return (a.is_number() && b.is_number()) || (a.is_string() && b.is_string());
}

/// What counts as true in Python.
bool is_truthy(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null: return false;
    case Json::value_t::boolean: return value.get<bool>();
    case Json::value_t::number_integer: return value.get<std::int64_t>() != 0;
    case Json::value_t::number_unsigned: return value.get<std::uint64_t>() != 0;
    case Json::value_t::number_float: return value.get<double>() != 0;
    case Json::value_t::string: return !value.get_ref<const std::string&>().empty();
    default: return !value.empty();
  }
}

}  // namespace

std::optional<Condition> condition_from(std::string_view name) {
  const auto found = std::find_if(kNames.begin(), kNames.end(), [&](const Named& n) { return n.name == name; });
  if (found == kNames.end()) return std::nullopt;
  return found->condition;
}

std::string_view to_string(Condition condition) { return kNames.at(static_cast<std::size_t>(condition)).name; }

std::string_view condition_names() {
  static const std::string kAll = [] {
    std::string out;
    for (const Named& n : kNames) out += (out.empty() ? "" : ", ") + std::string(n.name);
    return out;
  }();
  return kAll;
}

bool takes_operand(Condition condition) { return condition <= Condition::kGreaterEqual; }

bool holds(Condition condition, const Json* value, const Json& operand) {
  switch (condition) {
    case Condition::kEqual: return value != nullptr && *value == operand;
    case Condition::kNotEqual: return value == nullptr || *value != operand;
    case Condition::kLess: return value != nullptr && comparable(*value, operand) && *value < operand;
    case Condition::kLessEqual: return value != nullptr && comparable(*value, operand) && *value <= operand;
    case Condition::kGreater: return value != nullptr && comparable(*value, operand) && *value > operand;
    case Condition::kGreaterEqual: return value != nullptr && comparable(*value, operand) && *value >= operand;
    case Condition::kTruthy: return value != nullptr && is_truthy(*value);
    case Condition::kFalsy: return value == nullptr || !is_truthy(*value);
    case Condition::kNull: return value != nullptr && value->is_null();
    case Condition::kNotNull: return value != nullptr && !value->is_null();
    case Condition::kAvailable: return value != nullptr;
    case Condition::kAbsent: return value == nullptr;
  }
  return false;
}

}  // namespace fantail::state
