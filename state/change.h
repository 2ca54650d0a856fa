#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/base/types.h"

namespace fantail::state {

using SessionId = Id128<struct SessionTag>;

/// How long a key lives. Neither: until it is deleted.
struct Life {
  WallTime expires{};          ///< 0: not by time
  SessionId session{};         ///< zero: not bound to a session
  std::uint32_t lease_ms = 0;  ///< of the session: how long it lasts without being renewed
  bool limited() const { return expires.ns != 0 || bool(session); }
  bool operator==(const Life&) const = default;
};

/// One key, before and after. JSON texts; nothing: absent.
struct Edit {
  std::string key;
  std::optional<std::string> before;
  std::optional<std::string> after;
  Life life{};                        ///< of `after`
  Life life_before{};                 ///< not in the journal, like the next
  std::uint64_t revision_before = 0;  ///< of `before`
  bool operator==(const Edit& o) const {
    return key == o.key && before == o.before && after == o.after && life == o.life;
  }
};

/// One mutation: what the journal keeps and watchers see. One revision whatever it changes.
struct Change {
  std::uint64_t revision = 0;  ///< first is 1, no holes, over all namespaces
  WallTime time{};
  std::string name_space;
  std::string kind;  ///< of operation: "set", "delete", "txn", "expire", ...
  InstanceId by{};   ///< the client that asked for it; zero: the server itself
  std::vector<Edit> edits;
  bool operator==(const Change&) const = default;
};

/// The beginning of a journal: the state as of some revision, so that nothing before is needed.
struct SnapshotBegin {
  std::uint64_t revision = 0;  ///< entries are at least this new; those that are newer say so
  bool operator==(const SnapshotBegin&) const = default;
};
struct SnapshotEntry {
  std::string name_space;
  std::string key;
  std::string value;  ///< JSON text
  std::uint64_t revision = 0;
  Life life{};
  bool operator==(const SnapshotEntry&) const = default;
};
/// One key of the store, borrowed.
struct EntryView {
  std::string_view name_space;
  std::string_view key;
  std::string_view value;  ///< JSON text
  std::uint64_t revision;
  Life life;
};
struct SnapshotEnd {
  std::uint64_t revision = 0;  ///< of the last change that any entry may contain
  std::uint64_t entries = 0;
  bool operator==(const SnapshotEnd&) const = default;
};
using JournalRecord = std::variant<SnapshotBegin, SnapshotEntry, SnapshotEnd, Change>;

/// One line of JSON with its newline. The first member, "sum", is XXH3-64 of what stands behind it, as 16 hexadecimal
/// digits. docs/protocol.md has the form.
std::string to_line(const JournalRecord& record);
std::string to_line(const Change& change);
std::string to_line(const SnapshotBegin& begin);
std::string to_line(const SnapshotEntry& entry);
void append_line(std::string& out, const EntryView& entry);  ///< the line of a SnapshotEntry
std::string to_line(const SnapshotEnd& end);
/// `line` without its newline. kCorrupt: the sum differs, or it is no record. The value of an entry is not looked at.
Result<JournalRecord> parse_line(std::string_view line);

/// The change as watchers print it: the same without "sum".
std::string to_event(const Change& change);

}  // namespace fantail::state
