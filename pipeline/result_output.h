#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/result.h"
#include "common/base/unique_fd.h"
#include "pipeline/collected_run.h"
#include "pipeline/number_set.h"

namespace fantail::pipeline {

/// Copies the results of a run to a file or to stdout as they come, each once, restarts included. What a file has of
/// each task is the beginning of that task's journal, unless that has lost its end and got other results there: those
/// that the file has are left out then. A full disk is waited for. One thread.
class ResultOutput {
 public:
  /// `target`: a path, to which is appended, or "-" for stdout.
  static Result<ResultOutput> open(const std::string& target, CollectedRun& run);

  /// kInvalid: nothing can be written there.
  static Status check(const std::string& target);

  /// Copies a piece; how many bytes. Does not wait for who reads stdout.
  std::size_t turn(MonoTime now);
  bool complete();
  /// When to call turn() again although nothing happened, while there is something left.
  MonoTime due() const { return again_; }

 private:
  ResultOutput(std::string target, UniqueFd fd, CollectedRun& run)
      : target_(std::move(target)), fd_(std::move(fd)), run_(run), copied_(run.tasks()) {}
  /// Of one task.
  struct Copied {
    std::uint64_t bytes = 0;  ///< of its journal
    std::uint64_t place = 0;  ///< in its journal, of the first result that is not copied
    NumberSet elsewhere{};    ///< jobs whose results the file has, and not where the journal has them
  };
  Status find_place();
  void found(std::size_t task, std::uint64_t number);
  std::uint64_t upto(std::size_t task);

  std::string target_;
  UniqueFd fd_;
  CollectedRun& run_;
  std::vector<Copied> copied_;
  std::size_t in_line_ = SIZE_MAX;  ///< the task of which a line is written in part
  MonoTime again_{};
  log::Repeated problem_log_;
};

}  // namespace fantail::pipeline
