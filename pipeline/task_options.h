#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/options.h"
#include "common/base/result.h"
#include "pipeline/task.h"

namespace fantail::pipeline {

/// The tasks of a run as they are given on the command line: --job FILE, or --lines FILE and --task NAME=CMD.
struct TaskOptions {
  std::string job_file;
  std::vector<std::string> lines;
  std::vector<std::string> tasks;
  std::vector<std::string> after;
  std::uint32_t retries = 0;
  std::uint32_t max_crashes = 3;
  Duration timeout{};
  Duration hard_timeout{};
  Duration back_off = 1s;
  std::vector<OptionSet::Given> given;  ///< in the order in which they stand

  void describe(OptionSet& options);
  /// Of these only what is said of attempts: retries, timeouts and the like.
  void describe_attempts(OptionSet& options);
  /// Everything wrong with them; opens no file.
  std::vector<std::string> problems() const;
  /// What --lines - makes of stdin: kWhole reads it to its end at once, so that a run can be gone on with that is given
  /// the same; kAsItComes does not wait for its end.
  enum class Stdin : std::uint8_t { kWhole, kAsItComes };
  /// Opens the files. kInvalid: every problem of a job file, each with its place where that is known.
  Result<std::vector<Task>> open(Stdin how) const;

 private:
  struct Named;
  std::vector<Named> named() const;
  TaskSpec spec_of(const std::string& name) const;
  Duration hard_timeout_of(Duration soft) const;
  Result<std::vector<Task>> open_job_file(Stdin how) const;
};

}  // namespace fantail::pipeline
