#include "state/watch.h"

#include <algorithm>
#include <array>

#include "common/json/json.h"

namespace fantail::state {

std::vector<std::string> WatchSpec::problems() const {
  std::vector<std::string> out;
  if (name_space.empty()) out.emplace_back("namespace: must not be empty");
  for (const auto& key : keys) {
    if (key.empty()) out.emplace_back("a key must not be empty");
    if (std::find(exclude.begin(), exclude.end(), key) != exclude.end()) {
      out.push_back("key '" + key + "' is wanted and excluded; leave out one of the two");
    }
  }
  if (!keys.empty() && identical && !condition && !test) {
    // As in the original: which of several keys was set to what it was cannot be told apart from no change.
    if (keys.size() > 1) {
      out.emplace_back("identical changes can be watched of one key or of all, not of some; leave one of the two out");
    }
  }
  if (condition && keys.size() != 1) {
    out.push_back("condition '" + std::string(to_string(*condition)) + "' is of one key; name it");
  }
  if (condition && test) out.emplace_back("a condition and a test exclude each other; write the test for both");
  return out;
}

bool WatchFilter::wants(const std::string& key) const {
  const auto in = [&](const std::vector<std::string>& list) {
    return std::find(list.begin(), list.end(), key) != list.end();
  };
  if (in(spec_.exclude)) return false;
  if (spec_.keys.empty() && spec_.prefixes.empty()) return true;
  return in(spec_.keys) || std::any_of(spec_.prefixes.begin(), spec_.prefixes.end(),
                                       [&](const std::string& p) { return key.starts_with(p); });
}

Status WatchFilter::enter(const SnapshotEntry& entry) {
  if (!spec_.needs_items() || entry.name_space != spec_.name_space) return {};
  auto value = parse_json(entry.value);
  if (!value) return fail(ErrorCode::kInvalid, "the value of '" + entry.key + "' is " + value.error().context);
  auto& items = items_.get_ref<Json::object_t&>();
  items.insert_or_assign(items.end(), entry.key, std::move(*value));
  return {};
}

bool WatchFilter::condition_holds(const std::string& key) const {
  const auto found = items_.find(key);
  return holds(*spec_.condition, found == items_.end() ? nullptr : &*found, spec_.operand);
}

bool WatchFilter::holds_now() const {
  if (spec_.test) return spec_.test(items_);
  return spec_.condition && condition_holds(spec_.keys.front());
}

bool WatchFilter::takes(const Change& change) {
  if (change.name_space != spec_.name_space) return false;
  if (spec_.needs_items()) {
    for (const Edit& edit : change.edits) {
      if (edit.after) {
        items_[edit.key] = Json::parse(*edit.after);
      } else {
        items_.erase(edit.key);
      }
    }
  }
  if (spec_.without && change.by == spec_.without) return false;
  const bool wanted = std::any_of(change.edits.begin(), change.edits.end(), [&](const Edit& edit) {
    return wants(edit.key) && (spec_.identical || edit.before != edit.after);
  });
  if (!wanted) return false;
  if (spec_.test) return spec_.test(items_);
  return !spec_.condition || condition_holds(spec_.keys.front());
}

// ---- tests from text

namespace {

struct Comparison {
  Json::json_pointer pointer;
  std::optional<Condition> condition;  // nothing: truthy
  Json literal;

  bool holds_in(const Json& items) const {
    const Json* value = items.contains(pointer) ? &items.at(pointer) : nullptr;
    return holds(condition.value_or(Condition::kTruthy), value, literal);
  }
};

std::string trimmed(const std::string& text) {
  const auto begin = text.find_first_not_of(" \t");
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

Result<Comparison> parse_comparison(const std::string& text) {
  struct Operator {
    std::string_view text;
    Condition condition;
  };
  // The longer ones first.
  static constexpr std::array<Operator, 6> kOperators = {{{"==", Condition::kEqual},
                                                          {"!=", Condition::kNotEqual},
                                                          {"<=", Condition::kLessEqual},
                                                          {">=", Condition::kGreaterEqual},
                                                          {"<", Condition::kLess},
                                                          {">", Condition::kGreater}}};
  Comparison out;
  std::string pointer = text;
  for (std::size_t i = 0; i < text.size() && !out.condition; ++i) {
    for (const Operator& op : kOperators) {
      if (text.compare(i, op.text.size(), op.text) != 0) continue;
      auto literal = parse_json(trimmed(text.substr(i + op.text.size())));
      if (!literal) {
        return fail(ErrorCode::kInvalid, "test '" + text + "': behind " + std::string(op.text) +
                                             " must be JSON: " + literal.error().context);
      }
      out.condition = op.condition;
      out.literal = std::move(*literal);
      pointer = text.substr(0, i);
      break;
    }
  }
  pointer = trimmed(pointer);
  if (pointer.empty()) {
    return fail(ErrorCode::kInvalid, "test '" + text + "': begins with a pointer such as /key or /key/member");
  }
  if (pointer.front() != '/') pointer.insert(0, 1, '/');
  try {
    out.pointer = Json::json_pointer(pointer);
  } catch (const Json::exception& e) {
    return fail(ErrorCode::kInvalid, "test '" + text + "': '" + pointer + "' is no JSON pointer: " + e.what());
  }
  return out;
}

}  // namespace

Result<std::function<bool(const Json&)>> parse_test(const std::string& text) {
  std::vector<Comparison> all;
  std::size_t from = 0;
  for (;;) {
    const auto next = text.find(" && ", from);
    auto comparison = parse_comparison(trimmed(text.substr(from, next == std::string::npos ? next : next - from)));
    if (!comparison) return tl::unexpected(comparison.error());
    all.push_back(std::move(*comparison));
    if (next == std::string::npos) break;
    from = next + 4;
  }
  return [all = std::move(all)](const Json& items) {
    return std::all_of(all.begin(), all.end(), [&](const Comparison& c) { return c.holds_in(items); });
  };
}

}  // namespace fantail::state
