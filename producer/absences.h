#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/stream/commit_ledger.h"

namespace fantail {

/// For how long each durable consumer has been away. Only the time counts in which this producer ran: while it does
/// not, nobody can come. Takes `now` as an argument and owns no clock.
class Absences {
 public:
  /// `away`: so far, in earlier runs.
  void load(const std::string& name, Duration away) { known_[name].before = away; }
  /// Those that are away for `limit` or longer now. Call it often: what is between two looks counts as the first was.
  std::vector<std::string> look(const CommitLedger& ledger, MonoTime now, Duration limit);
  void forget(const std::string& name) { known_.erase(name); }

  Duration away(const std::string& name, MonoTime now) const;
  /// To be kept for the next run.
  std::map<std::string, Duration> all(MonoTime now) const;

 private:
  struct Absence {
    Duration before{};
    std::optional<MonoTime> since;
  };
  std::map<std::string, Absence> known_;
};

}  // namespace fantail
