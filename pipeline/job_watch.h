#pragma once

#include <map>
#include <optional>
#include <set>
#include <utility>

#include "common/base/clock.h"
#include "common/transport/control_link.h"
#include "pipeline/job_board.h"

namespace fantail::pipeline {

/// Jobs that are taken away from their workers when they take too long.
class JobWatch {
 public:
  /// Replaces what was said of the job before.
  void watch(JobId job, PeerId worker, MonoTime until) {
    unwatch(job);
    watched_[job] = {until, worker};
    order_.emplace(until, job);
  }
  void unwatch(JobId job) {
    const auto found = watched_.find(job);
    if (found == watched_.end()) return;
    order_.erase({found->second.until, job});
    watched_.erase(found);
  }
  /// The next one whose time is over, and who has it; it is not watched any more.
  std::optional<std::pair<JobId, PeerId>> take_overdue(MonoTime now) {
    if (order_.empty() || order_.begin()->first > now) return std::nullopt;
    const JobId job = order_.begin()->second;
    const PeerId worker = watched_.at(job).worker;
    unwatch(job);
    return std::pair{job, worker};
  }
  MonoTime due() const { return order_.empty() ? MonoTime::max() : order_.begin()->first; }

 private:
  struct Watched {
    MonoTime until;
    PeerId worker;
  };
  std::map<JobId, Watched> watched_;
  std::set<std::pair<MonoTime, JobId>> order_;
};

}  // namespace fantail::pipeline
