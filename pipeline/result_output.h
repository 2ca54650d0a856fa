#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/result.h"
#include "common/base/unique_fd.h"
#include "pipeline/collected_run.h"

namespace fantail::pipeline {

/// Copies the results of a run to a file or to stdout as they come, each once, restarts included: what a file has of
/// each task is always the beginning of that task's journal. A full disk is waited for. One thread.
class ResultOutput {
 public:
  /// `target`: a path, to which is appended, or "-" for stdout.
  static Result<ResultOutput> open(const std::string& target, CollectedRun& run);

  /// kInvalid: nothing can be written there.
  static Status check(const std::string& target);

  /// Copies a piece; how many bytes. Does not wait for who reads stdout.
  std::size_t turn(MonoTime now);
  bool complete() const;
  /// When to call turn() again although nothing happened, while there is something left.
  MonoTime due() const { return again_; }

 private:
  ResultOutput(std::string target, UniqueFd fd, CollectedRun& run)
      : target_(std::move(target)), fd_(std::move(fd)), run_(run), copied_(run.tasks(), 0) {}
  Status find_place();

  std::string target_;
  UniqueFd fd_;
  CollectedRun& run_;
  std::vector<std::uint64_t> copied_;  ///< bytes of each task's journal
  std::size_t in_line_ = SIZE_MAX;     ///< the task of which a line is written in part
  MonoTime again_{};
  log::Repeated problem_log_;
};

}  // namespace fantail::pipeline
