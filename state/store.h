#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>
#include <vector>

#include "common/base/clock.h"
#include "state/change.h"
#include "state/key_table.h"

namespace fantail::state {

struct StoreLimits {
  std::size_t max_key_bytes = 4096;
  std::size_t max_namespace_bytes = 255;
  std::size_t max_value_bytes = 8 * 1024 * 1024;  ///< of the compact JSON text
  std::size_t max_namespaces = 65'536;
};

/// Why an operation was refused. Nothing was changed then.
struct OpError {
  std::string type;     ///< to branch on: "key_absent", "condition_failed", "wrong_type", ...
  std::string message;  ///< names the thing, the reason and the remedy
};

/// Namespaces of keys with JSON values, and every operation on them. Each operation, a transaction included, happens as
/// a whole or not at all, and gets one revision if it changes anything. Pure: time comes in as an argument, what
/// changed goes out as a Change; journal and network are somebody else's. Not thread-safe.
class StateStore {
 public:
  explicit StateStore(StoreLimits limits = {}) : limits_(limits) {}

  /// Runs one operation, given by its name and the JSON text of its arguments; docs/protocol.md lists them. Returns the
  /// JSON text of the result. A change it made waits in take_changes().
  tl::expected<std::string, OpError> apply(std::string_view operation, std::string_view arguments, InstanceId by,
                                           WallTime now);
  /// Whether there is an operation of this name.
  static bool knows(std::string_view operation);

  /// Deletes what is due at `now` and what belongs to sessions that ended. When the next is due is told by due().
  void expire(WallTime now);
  /// The earliest end of a key by time; nothing when there is none.
  std::optional<WallTime> due() const;

  /// Keys may be bound to this session from now on / not any more: they are deleted.
  void open_session(SessionId session, std::uint32_t lease_ms) { sessions_[session] = lease_ms; }
  void close_session(SessionId session, WallTime now);
  /// Sessions that own keys, with their leases: after a restart they have to be given time to come back.
  std::map<SessionId, std::uint32_t> sessions_with_keys() const;

  /// The changes since the last call, oldest first.
  std::vector<Change> take_changes() { return std::exchange(changes_, {}); }
  /// The same into `out`, whose memory is used for the next ones.
  void take_changes(std::vector<Change>& out) {
    out.clear();
    out.swap(changes_);
  }
  /// Takes the newest changes back, which could not be made durable. `changes` as given by take_changes(), all that
  /// came since.
  void undo(const std::vector<Change>& changes);

  /// Repeats what a journal says. kCorrupt: it does not follow.
  Status replay(const JournalRecord& record);

  std::uint64_t revision() const { return revision_; }
  /// Of the last change of a namespace, or a later one where that is not known exactly.
  std::uint64_t last_change(std::string_view name_space) const;
  std::size_t keys() const;
  std::uint64_t bytes() const;
  std::vector<std::string> namespaces() const;
  /// Calls `take(entry)` for entries behind (`name_space`, `key`), in that order, until it returns false.
  void scan_after(const std::string& name_space, const std::string& key,
                  const std::function<bool(const EntryView&)>& take) const;

 private:
  friend class Transaction;
  struct Namespace {
    KeyTable table;
    std::map<std::string, Life, std::less<>> lives;  ///< of keys whose life is limited
  };
  struct Due {
    WallTime at;
    std::string name_space;
    std::string key;
    auto operator<=>(const Due&) const = default;
  };
  Namespace* find(std::string_view name_space);
  void write(const std::string& name_space, const std::string& key, std::optional<std::string_view> value,
             const Life& life, std::uint64_t revision);
  void set_life(const std::string& name_space, Namespace& in, const std::string& key, const Life& life);
  void commit(std::string_view kind, const std::string& name_space, InstanceId by, WallTime now,
              std::vector<Edit> edits);

  StoreLimits limits_;
  std::map<std::string, Namespace, std::less<>> namespaces_;
  std::set<Due> due_;
  std::map<SessionId, std::set<std::pair<std::string, std::string>>> session_keys_;
  std::map<SessionId, std::uint32_t> sessions_;  ///< open ones, with their leases in ms
  std::uint64_t revision_ = 0;
  std::map<std::string, std::uint64_t, std::less<>> last_change_;  ///< revision, of each namespace there ever was
  std::uint64_t last_change_floor_ = 0;                            ///< of those that a snapshot says nothing of
  std::vector<Change> changes_;
};

}  // namespace fantail::state
