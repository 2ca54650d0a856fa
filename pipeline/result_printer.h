#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "pipeline/collected_run.h"
#include "pipeline/job_board.h"

namespace fantail::pipeline {

/// Prints what comes of the jobs of a run on stdout, without ever waiting for who reads it: results as they come, or in
/// the order of the jobs; jobs that were given up among them. What waits to be printed is in the journals. One thread.
class ResultPrinter {
 public:
  struct Options {
    bool keep_order = false;
    bool results_only = false;  ///< the result alone: bytes of a command as it printed them
  };
  explicit ResultPrinter(Options options) : options_(options) {}

  /// `line`: what is printed for a job that was given up; empty: nothing.
  void given_up(JobId job, std::string line);
  /// It is to be done after all.
  void requeued(JobId job) { dead_.erase(job); }
  /// No job will end any more: what waits for its turn behind one that has not is printed, too.
  void ends() { ending_ = true; }
  /// Prints a piece; how many bytes.
  std::size_t turn(const CollectedRun& run);
  /// Nothing waits.
  bool complete(const CollectedRun& run) const;
  /// Whoever reads has gone.
  bool broken() const { return broken_; }

 private:
  std::size_t fill(const CollectedRun& run);
  std::optional<std::uint64_t> next_in_order(const CollectedRun& run, std::uint32_t task) const;
  std::size_t write();
  void put(const std::string& line);

  Options options_;
  std::vector<std::uint64_t> next_;  ///< of each task: a number, or a place in the order in which they came
  std::map<JobId, std::string> dead_;
  std::deque<std::string> dead_as_they_come_;
  std::string waiting_;
  bool ending_ = false;
  bool broken_ = false;
  log::Repeated full_log_;
};

}  // namespace fantail::pipeline
