#include "state/key_table.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "common/base/digest.h"

namespace fantail::state {
namespace {

constexpr std::size_t kFirstBuckets = 16;

}  // namespace

KeyTable::KeyTable() : buckets_(kFirstBuckets), index_({buckets_.data(), buckets_.size()}) {}

std::size_t KeyTable::Hash::operator()(std::string_view key) const { return digest(as_bytes(key)); }

/// One bucket more where there are as many keys as buckets; when all of the array are in use, an array of twice the
/// size.
void KeyTable::grow_index() {
  if (index_.size() <= index_.split_count() || index_.incremental_rehash(true)) return;
  std::vector<Index::bucket_type> larger(2 * buckets_.size());
  index_.incremental_rehash({larger.data(), larger.size()});
  buckets_ = std::move(larger);
  index_.incremental_rehash(true);
}

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
  const auto found = index_.find(key, Hash{}, Equal{});
  if (found == index_.end()) return std::nullopt;
  return found->view();
}

void KeyTable::put(std::string_view key, std::string_view value, std::uint64_t revision) {
  Entry* entry = make(key, value, revision);
  bytes_ += key.size() + value.size();
  if (const auto found = index_.find(key, Hash{}, Equal{}); found != index_.end()) {
    Entry& old = *found;
    bytes_ -= std::uint64_t{old.key_bytes} + old.value_bytes;
    entries_.replace_node(entries_.iterator_to(old), *entry);
    index_.erase(found);
    index_.insert(*entry);
    destroy(&old);
    return;
  }
  entries_.insert(*entry);
  index_.insert(*entry);
  grow_index();
}

bool KeyTable::erase(std::string_view key) {
  const auto found = index_.find(key, Hash{}, Equal{});
  if (found == index_.end()) return false;
  Entry& entry = *found;
  bytes_ -= std::uint64_t{entry.key_bytes} + entry.value_bytes;
  index_.erase(found);
  entries_.erase(entries_.iterator_to(entry));
  destroy(&entry);
  return true;
}

void KeyTable::clear() {
  index_.clear();
  entries_.clear_and_dispose(destroy);
  bytes_ = 0;
}

std::optional<KeyTable::View> KeyTable::last() const {
  if (entries_.empty()) return std::nullopt;
  return entries_.rbegin()->view();
}

}  // namespace fantail::state
