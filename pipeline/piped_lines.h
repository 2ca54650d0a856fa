#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <string>

#include "common/base/result.h"
#include "pipeline/generated_jobs.h"
#include "pipeline/job_source.h"

namespace fantail::pipeline {

/// Jobs as the lines that come out of a pipe or a terminal, handed out while more are still to come. What was read is
/// kept in a temporary file until the run is over, since a job may be asked for again; it is read no further than some
/// MiB ahead of the last job that was asked for, so that whoever writes waits for the workers, and `yes` is a source
/// like any other. A run of them cannot be gone on with: nobody can tell whether another pipe would say the same. One
/// thread.
class PipedLines final : public JobSource {
 public:
  /// `fd` stays the caller's and must outlive this; it is not made non-blocking, since others may share it, but is read
  /// only when poll() says that it would not wait. `name`: for messages.
  static Result<std::unique_ptr<PipedLines>> open(int fd, std::string name);

  Result<std::uint64_t> look_on() override;
  bool complete() const override { return jobs_->complete(); }
  /// kInvalid: it is longer than kMaxJobBytes; the rest of such a line is read and thrown away.
  Result<std::string> job(std::uint64_t number) override;
  /// Unlike that of every other pipe.
  Result<std::string> fingerprint() const override { return jobs_->fingerprint(); }
  void add_to(Waiter& waiter) const override;

 private:
  PipedLines(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}
  bool full() const;
  Status read_on();
  void take(std::string_view bytes);
  void end_line();

  int fd_;
  std::string name_;
  std::unique_ptr<GeneratedJobs> jobs_;
  std::string line_;               ///< what came of the one that has not ended
  bool in_line_ = false;           ///< something came of it, if only what was thrown away
  bool ended_ = false;             ///< there will be no more bytes
  std::deque<std::string> lines_;  ///< that are not in `jobs_` yet
  std::uint64_t kept_ = 0;         ///< lines that are
  std::uint64_t count_ = 0;        ///< lines so far
  std::set<std::uint64_t> too_long_;
  std::deque<std::uint32_t> ahead_;  ///< bytes of each line that was not asked for yet
  std::uint64_t ahead_bytes_ = 0;
};

}  // namespace fantail::pipeline
