#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "pipeline/job_board.h"

/// What distributor, workers and collector say to each other: requests and answers in JSON, see docs/protocol.md.
namespace fantail::pipeline {

// Requests that a distributor takes.
inline constexpr std::string_view kJoin = "join";
inline constexpr std::string_view kTake = "take";
inline constexpr std::string_view kReport = "report";
inline constexpr std::string_view kMetadata = "metadata";
inline constexpr std::string_view kDead = "dead";
inline constexpr std::string_view kResize = "resize";
inline constexpr std::string_view kStatus = "status";  // a collector, too
// Requests that a collector takes.
inline constexpr std::string_view kOpen = "open";
inline constexpr std::string_view kCollect = "collect";
inline constexpr std::string_view kFollow = "follow";
inline constexpr std::string_view kFinish = "finish";
inline constexpr std::string_view kResult = "result";

inline constexpr std::size_t kMaxResultBytes = 1024 * 1024;  ///< of one result, as JSON
inline constexpr std::uint32_t kMaxTake = 8192;              ///< jobs at a time
inline constexpr std::size_t kMaxTakeBytes = 4 * 1024 * 1024;

/// A worker is there, perhaps again.
struct JoinMessage {
  std::string worker;         ///< unlike every other
  std::uint32_t threads = 1;  ///< so many jobs at a time
  std::vector<JobId> holds;   ///< of this run, from before
  std::string run;            ///< of `holds`

  std::string to_json() const;
  static Result<JoinMessage> from_json(std::string_view text);
};

/// What a worker must know of a task.
struct TaskMessage {
  std::string name;
  std::string command;
  Duration timeout{};
};

/// The answer.
struct WelcomeMessage {
  std::string run;
  std::string collector;  ///< its address, as the distributor knows it
  std::string metadata;   ///< JSON
  std::vector<TaskMessage> tasks;

  std::string to_json() const;
  static Result<WelcomeMessage> from_json(std::string_view text);
};

struct JobMessage {
  JobId job;
  unsigned attempt = 1;
  std::string data;
};

/// Jobs for a worker; none: the run is over.
struct JobsMessage {
  std::vector<JobMessage> jobs;

  std::string to_json() const;
  static Result<JobsMessage> from_json(std::string_view text);
};

/// What a worker says of jobs that have no result.
struct ReportMessage {
  struct Failure {
    JobId job;
    int exit = 1;  ///< -N: by signal N
    double seconds = 0;
    std::string error;  ///< for people
  };
  std::vector<Failure> failed;
  std::vector<JobId> returned;  ///< not begun
  bool leaving = false;         ///< it takes nothing more and will be gone soon; that is nobody's fault

  bool empty() const { return failed.empty() && returned.empty() && !leaving; }
  std::string to_json() const;
  static Result<ReportMessage> from_json(std::string_view text);
};

/// A result, as it stands in the journal of the collector and in what consumers get.
struct ResultRecord {
  std::string id;  ///< "TASK:NUMBER"
  std::string task;
  unsigned attempt = 1;
  std::string worker;
  double started = 0;  ///< seconds since 1970-01-01 UTC
  double seconds = 0;
  int exit = 0;
  std::string result = "null";  ///< JSON

  /// Without an end of line.
  std::string to_json() const;
};

}  // namespace fantail::pipeline
