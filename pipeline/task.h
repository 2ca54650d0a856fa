#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "pipeline/job_board.h"
#include "pipeline/job_source.h"

namespace fantail::pipeline {

/// What is said of a job whose result is safe with the collector. Without DistributorConfig::details `ack` and `job`
/// alone.
struct Acknowledgement {
  std::uint64_t ack = 0;  ///< 1, 2, 3, ... over all tasks of a run, without holes
  JobId job;
  unsigned attempt = 1;
  std::string worker;
  double started = 0;  ///< seconds since 1970-01-01 UTC, by the worker's clock
  double seconds = 0;  ///< that it took
  std::string data;    ///< what the collector's on_result had to say, JSON; empty: nothing
};

/// A kind of work, as the distributor sees it. Hooks may be empty; they are called between two messages, on its thread,
/// and must not throw.
struct Task {
  TaskSpec spec;
  std::string command;      ///< for `sh -c`; empty: workers know by the task's name what to do
  Duration timeout{};       ///< the worker ends an attempt then, which has failed; zero: never
  Duration hard_timeout{};  ///< the worker has not even done that: the job goes to another; zero: never
  std::unique_ptr<JobSource> jobs;

  /// Before the first job is handed out in this process, with what the metadata source said (JSON; "null" without one).
  std::function<void(std::string_view metadata)> initialize;
  std::function<void(const Acknowledgement&)> on_acknowledged;
};

/// kInvalid: task names are parts of topics and of file names: letters, digits, '.', '_' and '-', at most 64, not
/// beginning with '.'.
Status check_task_name(std::string_view name);

}  // namespace fantail::pipeline
