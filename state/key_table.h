#pragma once

#include <boost/intrusive/set.hpp>
#include <boost/intrusive/unordered_set.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

namespace fantail::state {

/// Keys with their JSON texts: in order of key for those who go through them, and found by hash, because a search in a
/// tree of a hundred thousand entries waits for memory at each step. Each entry is one block of memory (key and value
/// behind 48 bytes), so that a million small keys cost about twice their bytes. The hash table grows by one bucket with
/// each key: there is no long pause. Not thread-safe.
class KeyTable {
 public:
  KeyTable();
  KeyTable(const KeyTable&) = delete;
  KeyTable& operator=(const KeyTable&) = delete;
  ~KeyTable() { clear(); }

  struct View {
    std::string_view key;
    std::string_view value;
    std::uint64_t revision;  ///< of its last change
  };

  /// Views are valid until the table changes.
  std::optional<View> find(std::string_view key) const;
  void put(std::string_view key, std::string_view value, std::uint64_t revision);
  bool erase(std::string_view key);
  void clear();

  std::size_t size() const { return entries_.size(); }
  /// Of all keys and values.
  std::uint64_t bytes() const { return bytes_; }

  /// Calls `take(view)` for each key from the first one that is not less than `from`, in order, until it returns false.
  template <class Take>
  void scan(std::string_view from, const Take& take) const {
    for (auto it = entries_.lower_bound(from, Before{}); it != entries_.end(); ++it) {
      if (!take(it->view())) return;
    }
  }
  std::optional<View> last() const;

 private:
  using Unchecked = boost::intrusive::link_mode<boost::intrusive::normal_link>;
  struct Entry : boost::intrusive::set_base_hook<boost::intrusive::optimize_size<true>, Unchecked>,
                 boost::intrusive::unordered_set_base_hook<Unchecked> {
    std::uint64_t revision;
    std::uint32_t key_bytes;
    std::uint32_t value_bytes;
    const char* text() const { return reinterpret_cast<const char*>(this + 1); }
    std::string_view key() const { return {text(), key_bytes}; }
    View view() const { return {key(), {text() + key_bytes, value_bytes}, revision}; }
    bool operator<(const Entry& other) const { return key() < other.key(); }
  };
  struct Before {
    bool operator()(std::string_view key, const Entry& entry) const { return key < entry.key(); }
    bool operator()(const Entry& entry, std::string_view key) const { return entry.key() < key; }
  };
  struct Hash {
    std::size_t operator()(std::string_view key) const;
    std::size_t operator()(const Entry& entry) const { return (*this)(entry.key()); }
  };
  struct Equal {
    bool operator()(std::string_view key, const Entry& entry) const { return key == entry.key(); }
    bool operator()(const Entry& a, const Entry& b) const { return a.key() == b.key(); }
  };
  using Index = boost::intrusive::unordered_set<Entry, boost::intrusive::hash<Hash>, boost::intrusive::equal<Equal>,
                                                boost::intrusive::incremental<true>>;
  void grow_index();
  static Entry* make(std::string_view key, std::string_view value, std::uint64_t revision);
  static void destroy(Entry* entry);

  boost::intrusive::set<Entry> entries_;
  std::vector<Index::bucket_type> buckets_;
  Index index_;
  std::uint64_t bytes_ = 0;
};

}  // namespace fantail::state
