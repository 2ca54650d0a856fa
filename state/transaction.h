#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "state/store.h"

namespace fantail::state {

/// Edits to one namespace that take effect at once and are taken back as a whole unless kept: what every operation is
/// written on. Of several edits of one key the first `before` and the last `after` count.
class Transaction {
 public:
  Transaction(StateStore& store, std::string name_space) : store_(store), name_space_(std::move(name_space)) {}
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  ~Transaction() { take_back(); }

  /// JSON text and revision of a key, or nothing. Valid until the next edit.
  std::optional<KeyTable::View> find(std::string_view key) const;
  const KeyTable* table() const;
  Life life_of(std::string_view key) const;

  void put(const std::string& key, std::string value, const Life& life);
  void erase(const std::string& key);

  bool empty() const { return edits_.empty(); }
  /// Hands out the edits and keeps them in force.
  std::vector<Edit> keep() {
    index_.clear();
    return std::exchange(edits_, {});
  }

 private:
  Edit& edit_of(const std::string& key);
  void take_back();

  StateStore& store_;
  std::string name_space_;
  std::vector<Edit> edits_;
  std::unordered_map<std::string, std::size_t> index_;  ///< by key
};

}  // namespace fantail::state
