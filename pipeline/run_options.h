#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/options.h"
#include "common/base/result.h"
#include "common/base/unique_fd.h"
#include "pipeline/distributor.h"

namespace fantail::pipeline {

/// When a run is to end before it is complete; the words of GNU parallel's --halt.
struct Halt {
  enum class What : std::uint8_t { kNever, kFail, kSuccess, kDone };
  What what = What::kNever;
  bool now = false;         ///< else what is going on is finished first
  std::uint64_t count = 0;  ///< so many jobs
  double share = 0;         ///< or this share of all jobs, 0 to 1
  /// "never", or (now|soon),(fail|success|done)=(N|N%).
  static Result<Halt> parse(const std::string& text);
  bool reached(std::uint64_t failed, std::uint64_t succeeded, std::uint64_t all) const;
};

/// How a run shows itself: --bar, --joblog, --halt; the same for run and distribute.
struct RunOptions {
  bool bar = false;
  std::string joblog;
  std::string halt = "never";
  Duration drain = 10s;

  void describe(OptionSet& options);
  std::vector<std::string> problems() const;
};

/// What is shown of a run while it goes on. Give hooks() to the distributor, then call turn() with it. One thread.
class RunReport {
 public:
  static Result<RunReport> open(const RunOptions& options);
  RunReport(RunReport&&) = default;
  RunReport& operator=(RunReport&&) = delete;

  void on_acknowledged(const Distributor& distributor, const Acknowledgement& ack, const std::string& line);
  /// `letter`: as Distributor::Hooks::on_dead has it.
  void on_dead(const Distributor& distributor, JobId job, int exit, const std::string& letter, const std::string& line);
  /// The bar, ten times a second.
  void turn(const Distributor& distributor, MonoTime now);
  /// The run is over: how far it came stays on the screen.
  void end(const Distributor& distributor, MonoTime now);
  MonoTime due() const { return bar_ ? next_bar_ : MonoTime::max(); }
  /// --halt: the run is to end; now, or when what is going on is finished.
  bool halted() const { return halted_; }
  bool halted_now() const { return halted_ && halt_.now; }

 private:
  RunReport(Halt halt, UniqueFd joblog, bool bar);
  std::string bar_text(const Distributor& distributor, MonoTime now);
  void log(const Distributor& distributor, JobId job, const Acknowledgement& ack, int exit, const std::string& line);
  void look_at_halt(const Distributor& distributor);

  Halt halt_;
  UniqueFd joblog_;
  bool bar_;
  MonoTime begun_{};
  std::optional<std::uint64_t> done_at_begin_;
  MonoTime next_bar_{};
  std::uint64_t succeeded_ = 0;
  std::uint64_t failed_ = 0;
  bool halted_ = false;
  bool complained_ = false;
};

}  // namespace fantail::pipeline
