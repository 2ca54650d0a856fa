#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "common/storage/append_file.h"
#include "common/storage/state_directory.h"
#include "pipeline/job_board.h"

namespace fantail::pipeline {

/// A job that was given up, for people: {id, task, attempts, failures, crashes, worker, exit, error, job, time}.
/// `job`: its line, at most 4 KiB of it.
struct DeadLetter {
  JobId job;
  std::string json;
};

/// What must survive a distributor: which run this is, which jobs were handed out to whom, what failed, what was given
/// up. What was acknowledged the collector knows. Lines of JSON, see docs/protocol.md. One thread.
class DistributorJournal {
 public:
  /// What the journal says of a run that was begun before.
  struct Past {
    std::map<JobId, JobBoard::Past> troubled;
    std::map<JobId, std::string> out;     ///< handed out, and not known to be failed; with the worker's name
    std::optional<std::string> metadata;  ///< JSON
    bool completed = false;
  };

  /// `tasks`: their names and where their jobs come from, as text; a journal of other tasks is kBusy, as is nothing but
  /// `anew`, which removes it. Without a journal begins one, with `run` as its name.
  static Result<DistributorJournal> open(const StateDirectory& directory, const std::string& run,
                                         const std::string& tasks, bool anew);
  /// The one that is there, whatever it is of. kNotFound: none.
  static Result<DistributorJournal> open(const StateDirectory& directory);

  /// Whether there is one in this directory.
  static bool exists_in(const std::filesystem::path& directory);

  const std::string& run() const { return run_; }
  const Past& past() const { return past_; }

  /// On error nothing of it is in the file: the jobs must not go out.
  Status handed_out(std::string_view worker, const std::vector<JobBoard::Assignment>& jobs);

  // Kept in memory, too, until write() succeeds; then write() must be called before the next handed_out().
  void troubled(JobId job, const JobBoard::Past& past);
  void given_up(JobId job, const std::string& json);
  void requeued(JobId job);
  void purged(JobId job);
  void metadata(const std::string& json);
  void completed();
  Status write();
  bool unwritten() const { return !pending_.empty(); }
  Status sync() const { return file_.sync(); }

  /// Those given up and not purged.
  std::vector<JobId> dead() const;
  /// "TASK:NUMBER" of the tasks of this run.
  std::optional<JobId> parse(std::string_view id) const;
  bool is_dead(JobId job) const { return dead_.contains(job); }
  Result<std::string> dead_letter(JobId job) const;

 private:
  DistributorJournal(AppendFile file) : file_(std::move(file)) {}
  Status replay();
  Status apply(std::string_view line, std::uint64_t offset);

  AppendFile file_;
  std::string run_;
  std::string tasks_;
  Past past_;
  std::map<JobId, std::uint64_t> dead_;  ///< where its line is in the file
  std::string pending_;
};

}  // namespace fantail::pipeline
