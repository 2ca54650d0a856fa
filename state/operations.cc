#include "state/operations.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "common/json/json.h"
#include "state/condition.h"

namespace fantail::state {
namespace {

// ---- reading arguments. A refusal is thrown inside this file, so that each operation reads as what it does.

struct Refused {
  OpError error;
};
[[noreturn]] void refused(std::string type, std::string message) {
  throw Refused{{std::move(type), std::move(message)}};
}

const Json* member(const Json& arguments, const char* name) {
  const auto found = arguments.find(name);
  return found == arguments.end() ? nullptr : &*found;
}

const Json& required(const Json& arguments, const char* name) {
  const Json* found = member(arguments, name);
  if (found == nullptr) refused("bad_request", "'" + std::string(name) + "' is missing");
  return *found;
}

void check_key(const std::string& key, const OpContext& context) {
  if (key.empty()) refused("bad_request", "a key must not be empty");
  if (key.size() > context.limits.max_key_bytes) {
    refused("too_large", "a key has at most " + std::to_string(context.limits.max_key_bytes) + " bytes");
  }
}

std::string key_of(const Json& arguments, const OpContext& context) {
  const Json& key = required(arguments, "key");
  if (!key.is_string()) refused("bad_request", "'key' must be a text");
  auto text = key.get<std::string>();
  check_key(text, context);
  return text;
}

std::string text_of(const Json& value, const std::string& key, const OpContext& context) {
  std::string text = to_text(value);
  if (text.size() > context.limits.max_value_bytes) {
    refused("too_large", "the value of '" + key + "' has " + std::to_string(text.size()) +
                             " bytes as JSON, the server takes " + std::to_string(context.limits.max_value_bytes) +
                             "; see --max-value");
  }
  if (deeper_than(text, kMaxDepth)) {
    refused("bad_request",
            "the value of '" + key + "' has more than " + std::to_string(kMaxDepth) + " levels of arrays and objects");
  }
  return text;
}

const Json& object_of(const Json& arguments, const char* name) {
  const Json& found = required(arguments, name);
  if (!found.is_object()) refused("bad_request", "'" + std::string(name) + "' must be an object");
  return found;
}

/// ttl_ms and session, where they are given.
Life life_of(const Json& arguments, const OpContext& context) {
  Life life;
  if (const Json* ttl = member(arguments, "ttl_ms")) {
    if (!ttl->is_number_unsigned() || ttl->get<std::uint64_t>() == 0 ||
        ttl->get<std::uint64_t>() > INT64_MAX / 2000000) {
      refused("bad_request", "'ttl_ms' must be a whole number of milliseconds above 0");
    }
    life.expires = {context.now.ns + ttl->get<std::int64_t>() * 1'000'000};
  }
  if (const Json* session = member(arguments, "session")) {
    const auto id =
        session->is_string() ? id_from_hex<SessionId>(session->get_ref<const std::string&>()) : std::nullopt;
    if (!id || !context.sessions.contains(*id)) {
      refused("session_unknown", "this session is not open, or was not renewed in time; open another");
    }
    life.session = *id;
    life.lease_ms = context.sessions.at(*id);
  }
  return life;
}

[[noreturn]] void absent(const std::string& key) { refused("key_absent", "key '" + key + "' is absent"); }

Json value_of(const KeyTable::View& view) { return Json::parse(view.value); }

// ---- results

std::string value_result(std::string_view value) { return R"({"value":)" + std::string(value) + '}'; }
std::string value_result(const KeyTable::View& view) {
  return R"({"value":)" + std::string(view.value) + R"(,"revision":)" + std::to_string(view.revision) + '}';
}
std::string nothing() { return "{}"; }

/// Calls `take` for the keys of the namespace with the prefix that the arguments may name.
template <class Take>
void each_key(const Transaction& t, const Json& arguments, const Take& take) {
  std::string prefix;
  if (const Json* given = member(arguments, "prefix")) {
    if (!given->is_string()) refused("bad_request", "'prefix' must be a text");
    prefix = given->get<std::string>();
  }
  const KeyTable* table = t.table();
  if (table == nullptr) return;
  table->scan(prefix, [&](const KeyTable::View& view) {
    if (!view.key.starts_with(prefix)) return false;
    take(view);
    return true;
  });
}

// ---- operations of a dictionary

std::string get(Transaction& t, const Json& a, const OpContext& c) {
  const auto key = key_of(a, c);
  if (const auto view = t.find(key)) return value_result(*view);
  if (const Json* otherwise = member(a, "default")) return value_result(to_text(*otherwise));
  absent(key);
}

std::string has(Transaction& t, const Json& a, const OpContext& c) {
  return value_result(t.find(key_of(a, c)) ? "true" : "false");
}

std::string set(Transaction& t, const Json& a, const OpContext& c) {
  const auto key = key_of(a, c);
  t.put(key, text_of(required(a, "value"), key, c), life_of(a, c));
  return nothing();
}

std::string erase(Transaction& t, const Json& a, const OpContext& c) {
  const auto key = key_of(a, c);
  if (!t.find(key)) absent(key);
  t.erase(key);
  return nothing();
}

std::string keys(Transaction& t, const Json& a, const OpContext&) {
  std::string out = "[";
  each_key(t, a, [&](const KeyTable::View& v) { out += (out.size() > 1 ? "," : "") + json_string(v.key); });
  return value_result(out + "]");
}

std::string items(Transaction& t, const Json& a, const OpContext& c) {
  std::string out = "{";
  each_key(t, a, [&](const KeyTable::View& v) {
    if (out.size() > 1) out += ',';
    out += json_string(v.key) + ':';
    out += v.value;
  });
  return R"({"value":)" + out + R"(},"revision":)" + std::to_string(c.revision) + '}';
}

std::string size(Transaction& t, const Json&, const OpContext&) {
  const KeyTable* table = t.table();
  return value_result(std::to_string(table == nullptr ? 0 : table->size()));
}

void erase_all(Transaction& t) {
  std::vector<std::string> all;
  if (const KeyTable* table = t.table()) {
    table->scan("", [&](const KeyTable::View& v) {
      all.emplace_back(v.key);
      return true;
    });
  }
  for (const auto& key : all) t.erase(key);
}

std::string clear(Transaction& t, const Json&, const OpContext&) {
  erase_all(t);
  return nothing();
}

std::string pop(Transaction& t, const Json& a, const OpContext& c) {
  const auto key = key_of(a, c);
  const auto view = t.find(key);
  if (!view) {
    if (const Json* otherwise = member(a, "default")) return value_result(to_text(*otherwise));
    absent(key);
  }
  std::string result = value_result(*view);
  t.erase(key);
  return result;
}

std::string popitem(Transaction& t, const Json&, const OpContext&) {
  const KeyTable* table = t.table();
  const auto view = table == nullptr ? std::nullopt : table->last();
  if (!view) refused("empty", "there is no key to pop: the namespace is empty");
  const std::string key(view->key);
  std::string result = R"({"key":)" + json_string(key) + R"(,"value":)" + std::string(view->value) + '}';
  t.erase(key);
  return result;
}

std::string setdefault(Transaction& t, const Json& a, const OpContext& c) {
  const auto key = key_of(a, c);
  if (const auto view = t.find(key)) return value_result(*view);
  std::string text = text_of(required(a, "value"), key, c);
  std::string result = value_result(text);
  t.put(key, std::move(text), life_of(a, c));
  return result;
}

void merge(Transaction& t, const Json& values, const Life& life, const OpContext& c) {
  for (const auto& [key, value] : values.items()) {
    check_key(key, c);
    t.put(key, text_of(value, key, c), life);
  }
}

std::string update(Transaction& t, const Json& a, const OpContext& c) {
  merge(t, object_of(a, "values"), life_of(a, c), c);
  return nothing();
}

std::string replace(Transaction& t, const Json& a, const OpContext& c) {
  const Json& values = object_of(a, "values");
  erase_all(t);
  merge(t, values, life_of(a, c), c);
  return nothing();
}

// ---- operations on one value. What is not named keeps its life.

std::string merge_patch(Transaction& t, const Json& a, const OpContext& c) {
  const auto key = key_of(a, c);
  const auto view = t.find(key);
  Json value = view ? value_of(*view) : Json();
  value.merge_patch(required(a, "patch"));
  std::string text = text_of(value, key, c);
  std::string result = value_result(text);
  t.put(key, std::move(text), t.life_of(key));
  return result;
}

std::string add(Transaction& t, const Json& a, const OpContext& c, bool negative) {
  const auto key = key_of(a, c);
  Json by = 1;
  if (const Json* given = member(a, "by")) by = *given;
  if (!by.is_number()) refused("bad_request", "'by' must be a number");
  Json value = 0;
  if (const auto view = t.find(key)) value = value_of(*view);
  if (!value.is_number()) {
    refused("wrong_type",
            "the value of '" + key + "' is no number but " + std::string(value.type_name()) + "; set it to one first");
  }
  Json sum;
  if (value.is_number_integer() && by.is_number_integer()) {
    // 64 bits, signed: a number that would not fit is refused instead of becoming another.
    const auto fits = [](const Json& n) { return !n.is_number_unsigned() || n.get<std::uint64_t>() <= INT64_MAX; };
    std::int64_t result = 0;
    const bool overflow =
        !fits(value) || !fits(by) ||
        (negative ? __builtin_sub_overflow(value.get<std::int64_t>(), by.get<std::int64_t>(), &result)
                  : __builtin_add_overflow(value.get<std::int64_t>(), by.get<std::int64_t>(), &result));
    if (overflow) refused("overflow", "the value of '" + key + "' would not fit 64 bits");
    sum = result;
  } else {
    const double result = value.get<double>() + (negative ? -by.get<double>() : by.get<double>());
    if (!std::isfinite(result)) refused("overflow", "the value of '" + key + "' would be no finite number");
    sum = result;
  }
  std::string text = to_text(sum);
  std::string reply = value_result(text);
  t.put(key, std::move(text), t.life_of(key));
  return reply;
}

std::string increment(Transaction& t, const Json& a, const OpContext& c) { return add(t, a, c, false); }
std::string decrement(Transaction& t, const Json& a, const OpContext& c) { return add(t, a, c, true); }

std::string append(Transaction& t, const Json& a, const OpContext& c) {
  const auto key = key_of(a, c);
  const Json& item = required(a, "value");
  Json list = Json::array();
  if (const auto view = t.find(key)) list = value_of(*view);
  if (!list.is_array()) {
    refused("wrong_type",
            "the value of '" + key + "' is no array but " + std::string(list.type_name()) + "; set it to one first");
  }
  list.push_back(item);
  t.put(key, text_of(list, key, c), t.life_of(key));
  return value_result(std::to_string(list.size()));
}

std::string compare_and_set(Transaction& t, const Json& a, const OpContext& c) {
  const auto key = key_of(a, c);
  const auto view = t.find(key);
  const Json* revision = member(a, "revision");
  if (revision != nullptr) {
    if (!revision->is_number_unsigned()) refused("bad_request", "'revision' must be a whole number; 0 means absent");
    const std::uint64_t present = view ? view->revision : 0;
    if (present != revision->get<std::uint64_t>()) {
      refused("condition_failed",
              "key '" + key + "' is at revision " + std::to_string(present) + ", not " + to_text(*revision));
    }
  } else {
    const Json& old = required(a, "old");
    if (!view || value_of(*view) != old) {
      refused("condition_failed", "key '" + key + "' is " +
                                      (view ? std::string(view->value.substr(0, 200)) : "absent") + ", not " +
                                      to_text(old).substr(0, 200));
    }
  }
  const Json* value = member(a, "value");
  if (value == nullptr) {
    if (view) t.erase(key);
    return nothing();
  }
  t.put(key, text_of(*value, key, c), life_of(a, c));
  return nothing();
}

std::string life(Transaction& t, const Json& a, const OpContext& c) {
  const auto key = key_of(a, c);
  if (!t.find(key)) absent(key);
  const Life life = t.life_of(key);
  std::string out = R"({"ttl_ms":)";
  out += life.expires.ns == 0 ? "null"
                              : std::to_string(std::max<std::int64_t>((life.expires.ns - c.now.ns) / 1'000'000, 0));
  out += R"(,"session":)" + (life.session ? json_string(to_string(life.session)) : std::string("null"));
  return out + '}';
}

/// Lets a key live for another while, or for ever.
std::string touch(Transaction& t, const Json& a, const OpContext& c) {
  const auto key = key_of(a, c);
  const auto view = t.find(key);
  if (!view) absent(key);
  t.put(key, std::string(view->value), life_of(a, c));
  return nothing();
}

// ---- transactions

std::string transact(Transaction& t, const Json& a, const OpContext& c);

struct Named {
  std::string_view name;
  std::string (*run)(Transaction&, const Json&, const OpContext&);
};
constexpr std::array<Named, 22> kOperations = {{{"get", get},
                                                {"has", has},
                                                {"set", set},
                                                {"delete", erase},
                                                {"keys", keys},
                                                {"items", items},
                                                {"size", size},
                                                {"clear", clear},
                                                {"pop", pop},
                                                {"popitem", popitem},
                                                {"setdefault", setdefault},
                                                {"update", update},
                                                {"replace", replace},
                                                {"merge_patch", merge_patch},
                                                {"increment", increment},
                                                {"decrement", decrement},
                                                {"append", append},
                                                {"cas", compare_and_set},
                                                {"life", life},
                                                {"touch", touch},
                                                {"txn", transact},
                                                // Of zproc: the whole dictionary.
                                                {"copy", items}}};

const Named* find_operation(std::string_view name) {
  const auto found =
      std::find_if(kOperations.begin(), kOperations.end(), [&](const Named& n) { return n.name == name; });
  return found == kOperations.end() ? nullptr : &*found;
}

/// {"key", "op", "value"}: whether it holds.
bool holds_for(const Transaction& t, const Json& test, const OpContext& c) {
  if (!test.is_object()) refused("bad_request", "each condition must be an object with key, op and value");
  const auto key = key_of(test, c);
  const Json& op = required(test, "op");
  if (!op.is_string()) refused("bad_request", "'op' must be a text: " + std::string(condition_names()) + ", revision");
  const auto& name = op.get_ref<const std::string&>();
  const auto view = t.find(key);
  if (name == "revision") {
    return required(test, "value") == Json(view ? view->revision : std::uint64_t{0});
  }
  const auto condition = condition_from(name);
  if (!condition) {
    refused("bad_request",
            "unknown condition '" + name + "'; there are " + std::string(condition_names()) + ", revision");
  }
  const Json operand = takes_operand(*condition) ? required(test, "value") : Json();
  if (!view) return holds(*condition, nullptr, operand);
  const Json value = value_of(*view);
  return holds(*condition, &value, operand);
}

/// ["set", key, value], ["delete", key], or an object {"op": "set", "key": ..., ...} with the arguments by name.
std::string step(Transaction& t, const Json& step, const OpContext& c) {
  Json arguments = Json::object();
  std::string name;
  if (step.is_object()) {
    arguments = step;
    const Json& op = required(step, "op");
    if (op.is_string()) name = op.get<std::string>();
  } else if (step.is_array() && !step.empty() && step[0].is_string()) {
    name = step[0].get<std::string>();
    // What stands behind the name, by position.
    static const std::map<std::string, std::vector<const char*>, std::less<>> kPositional = {
        {"merge_patch", {"key", "patch"}},
        {"increment", {"key", "by"}},
        {"decrement", {"key", "by"}},
        {"cas", {"key", "old", "value"}},
        {"update", {"values"}},
        {"replace", {"values"}},
        {"keys", {"prefix"}},
        {"items", {"prefix"}},
        {"get", {"key", "default"}},
        {"pop", {"key", "default"}}};
    static const std::vector<const char*> kUsual = {"key", "value"};
    const auto special = kPositional.find(name);
    const auto& names = special == kPositional.end() ? kUsual : special->second;
    if (step.size() > names.size() + 1) refused("bad_request", "too many arguments for '" + name + "'");
    for (std::size_t i = 1; i < step.size(); ++i) arguments[names[i - 1]] = step[i];
  } else {
    refused("bad_request", "each step must be [\"operation\", key, ...] or an object with 'op'");
  }
  const Named* operation = find_operation(name);
  if (operation == nullptr || operation->run == transact) {
    refused("unknown_method", "a transaction cannot have the step '" + name + "'");
  }
  return operation->run(t, arguments, c);
}

std::string transact(Transaction& t, const Json& a, const OpContext& c) {
  const auto list = [&](const char* name) -> const Json& {
    static const Json kNone = Json::array();
    const Json* found = member(a, name);
    if (found == nullptr) return kNone;
    if (!found->is_array()) refused("bad_request", "'" + std::string(name) + "' must be an array");
    return *found;
  };
  bool all = true;
  if (const Json* since = member(a, "unchanged_since")) {
    if (!since->is_number_unsigned()) refused("bad_request", "'unchanged_since' must be a revision");
    all = c.last_change <= since->get<std::uint64_t>();
  }
  for (const Json& test : list("if")) all = holds_for(t, test, c) && all;
  std::string results = "[";
  for (const Json& each : list(all ? "then" : "else")) {
    if (results.size() > 1) results += ',';
    results += step(t, each, c);
  }
  return std::string(R"({"succeeded":)") + (all ? "true" : "false") + R"(,"results":)" + results + "]}";
}

template <std::size_t I>
OpResult run(Transaction& t, const Json& arguments, const OpContext& context) {
  try {
    return kOperations[I].run(t, arguments, context);
  } catch (const Refused& e) {
    return tl::unexpected(e.error);
  }
}

template <std::size_t... I>
constexpr std::array<Operation, sizeof...(I)> table(std::index_sequence<I...>) {
  return {run<I>...};
}
constexpr auto kRun = table(std::make_index_sequence<kOperations.size()>());

}  // namespace

Operation operation_of(std::string_view name) {
  const Named* found = find_operation(name);
  return found == nullptr ? nullptr : kRun[static_cast<std::size_t>(found - kOperations.data())];
}

}  // namespace fantail::state
