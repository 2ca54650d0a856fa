#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "common/base/clock.h"
#include "common/stream/commit_ledger.h"
#include "common/wire/messages.h"

namespace fantail {

/// One stream as a status shows it.
struct StreamState {
  wire::StreamInfo info;  ///< with `sent` and `head` as they are now
  std::string current_path;
  std::optional<wire::LossReason> gone;  ///< its bytes cannot be read any more
  std::optional<Duration> deleted_for;   ///< the file has no name any more, only we have it open
  bool open = false;
  bool missing = false;  ///< of a producer that does not run: the file is not where it was
  /// "gone", "held", "deleted" (and nobody lacks bytes of it), "missing", "sealed" or "live": the first that is true.
  const char* word(const CommitLedger& ledger) const;
  /// Held for somebody: deleted, readable, and not committed by all.
  bool held(const CommitLedger& ledger) const;
};

/// `type`: "stream". Who waits for it is in `waiting`: durable consumers that want it and have not committed all of it,
/// each with the range that they lack. What they lack of a stream that is gone is lost to them.
nlohmann::json stream_report(const StreamState& stream, const CommitLedger& ledger);

/// Adds up streams for the summary.
class StatusTotals {
 public:
  explicit StatusTotals(const CommitLedger& ledger) : ledger_(ledger) {}
  void add(const StreamState& stream);
  /// `type`: "summary", with an entry in `consumers` for every durable consumer. `away`: for how long it is.
  nlohmann::json report(const std::map<std::string, Duration>& away) const;

 private:
  struct Share {
    std::size_t streams = 0;
    std::uint64_t behind_bytes = 0;
    std::size_t held_files = 0;
    std::uint64_t held_bytes = 0;
  };
  const CommitLedger& ledger_;
  std::map<std::string, std::size_t> by_word_;
  std::size_t streams_ = 0;
  std::size_t open_files_ = 0;
  std::uint64_t size_bytes_ = 0;
  std::uint64_t unsent_bytes_ = 0;
  std::uint64_t behind_bytes_ = 0;
  std::size_t held_files_ = 0;
  std::uint64_t held_bytes_ = 0;
  std::map<std::string, Share> by_consumer_;
};

/// A summary as Prometheus text.
std::string metrics_of(const nlohmann::json& summary);
/// A summary for people, some lines.
std::string text_of(const nlohmann::json& summary);

}  // namespace fantail
