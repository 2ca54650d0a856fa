#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/storage/append_file.h"
#include "pipeline/job_source.h"

namespace fantail::pipeline {

/// Jobs that a function makes, kept in a temporary file until the run is over: 8 bytes of memory for each. One thread.
class GeneratedJobs final : public JobSource {
 public:
  /// The job of this number, from 1 on without holes, or nothing: none yet, or no more, which `complete` tells. A run
  /// that goes on after a restart asks again from 1 on and must get the same.
  using Next = std::function<std::optional<std::string>(std::uint64_t number)>;

  /// `name`: the same for the same jobs; a run with jobs of another name does not go on with this one's journal.
  static Result<std::unique_ptr<GeneratedJobs>> make(std::string name, Next next, std::function<bool()> complete);
  /// All of them at once.
  static Result<std::unique_ptr<GeneratedJobs>> make(const std::vector<std::string>& jobs);

  Result<std::uint64_t> look_on() override;
  bool complete() const override { return complete_; }
  Result<std::string> job(std::uint64_t number) override;
  Result<std::string> fingerprint() const override { return name_; }

 private:
  GeneratedJobs(AppendFile file, std::string name, Next next, std::function<bool()> complete)
      : file_(std::move(file)), name_(std::move(name)), next_(std::move(next)), is_complete_(std::move(complete)) {}

  AppendFile file_;
  std::string name_;
  Next next_;
  std::function<bool()> is_complete_;
  bool complete_ = false;
  std::vector<std::uint64_t> ends_{0};  ///< where each job ends in the file
};

}  // namespace fantail::pipeline
