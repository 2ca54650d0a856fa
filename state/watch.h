#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "state/change.h"
#include "state/condition.h"

namespace fantail::state {

/// What a watcher wants to hear of.
struct WatchSpec {
  std::string name_space = "default";
  std::vector<std::string> keys;       ///< these, and
  std::vector<std::string> prefixes;   ///< those that begin so; both empty: all
  std::vector<std::string> exclude;    ///< but not these
  std::optional<Condition> condition;  ///< of one of the keys, after the change; nothing: it changed
  nlohmann::json operand;              ///< of the condition
  /// Of the whole namespace after the change; empty: none.
  std::function<bool(const nlohmann::json& items)> test;
  bool identical = false;  ///< also changes that set what was there already
  InstanceId without{};    ///< not the changes that this client made; zero: all

  /// Everything wrong with it, as sentences; empty when usable.
  std::vector<std::string> problems() const;
  /// Whether it can be decided only with the values of the namespace at hand.
  bool needs_items() const { return condition.has_value() || static_cast<bool>(test); }
};

/// Decides which changes a watcher hears of. Follows the namespace if the spec needs it. Pure.
class WatchFilter {
 public:
  explicit WatchFilter(WatchSpec spec) : spec_(std::move(spec)) {}
  const WatchSpec& spec() const { return spec_; }

  /// The state to begin with, before the first change; quickest in order of key. kInvalid: the value is no JSON.
  Status enter(const SnapshotEntry& entry);
  void forget() { items_ = nlohmann::json::object(); }
  /// Whether the condition holds as things are: without a change. False where there is no condition.
  bool holds_now() const;
  /// Takes a change in; whether the watcher is to hear of it.
  bool takes(const Change& change);
  /// Key to value, if the spec needs it.
  const nlohmann::json& items() const { return items_; }

 private:
  bool wants(const std::string& key) const;
  bool condition_holds(const std::string& key) const;

  WatchSpec spec_;
  nlohmann::json items_ = nlohmann::json::object();
};

/// A test of a namespace from text: "/pointer OP literal", where the pointer is of RFC 6901 and begins at the key, OP
/// is one of == != < <= > >=, the literal is JSON; or "/pointer" alone: true if what is there is truthy; several joined
/// by " && ". An absent value makes every comparison false, but != true. kInvalid names what is wrong.
Result<std::function<bool(const nlohmann::json& items)>> parse_test(const std::string& text);

}  // namespace fantail::state
