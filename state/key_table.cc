#include "state/key_table.h"

#include <cstdlib>
#include <cstring>
#include <new>

namespace fantail::state {

KeyTable::Entry* KeyTable::make(std::string_view key, std::string_view value, std::uint64_t revision) {
  void* memory = std::malloc(sizeof(Entry) + key.size() + value.size());
  if (memory == nullptr) throw std::bad_alloc();
  auto* entry = new (memory) Entry();
  entry->revision = revision;
  entry->key_bytes = static_cast<std::uint32_t>(key.size());
  entry->value_bytes = static_cast<std::uint32_t>(value.size());
  char* text = reinterpret_cast<char*>(entry + 1);
  std::memcpy(text, key.data(), key.size());
  std::memcpy(text + key.size(), value.data(), value.size());
  return entry;
}

void KeyTable::destroy(Entry* entry) {
  entry->~Entry();
  std::free(entry);
}

std::optional<KeyTable::View> KeyTable::find(std::string_view key) const {
  const auto found = entries_.find(key, Before{});
  if (found == entries_.end()) return std::nullopt;
  return found->view();
}

void KeyTable::put(std::string_view key, std::string_view value, std::uint64_t revision) {
  boost::intrusive::set<Entry>::insert_commit_data place;
  const auto [at, is_new] = entries_.insert_check(key, Before{}, place);
  Entry* entry = make(key, value, revision);
  bytes_ += key.size() + value.size();
  if (is_new) {
    entries_.insert_commit(*entry, place);
    return;
  }
  Entry& old = *at;
  bytes_ -= std::uint64_t{old.key_bytes} + old.value_bytes;
  entries_.replace_node(at, *entry);
  destroy(&old);
}

bool KeyTable::erase(std::string_view key) {
  const auto found = entries_.find(key, Before{});
  if (found == entries_.end()) return false;
  bytes_ -= std::uint64_t{found->key_bytes} + found->value_bytes;
  entries_.erase_and_dispose(found, destroy);
  return true;
}

void KeyTable::clear() {
  entries_.clear_and_dispose(destroy);
  bytes_ = 0;
}

std::optional<KeyTable::View> KeyTable::last() const {
  if (entries_.empty()) return std::nullopt;
  return entries_.rbegin()->view();
}

}  // namespace fantail::state
