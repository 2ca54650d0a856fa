#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "pipeline/number_set.h"

namespace fantail::pipeline {

/// One job: which of its task, from 1 on. As text "TASK:NUMBER".
struct JobId {
  std::uint32_t task = 0;  ///< place in the list of tasks
  std::uint64_t number = 0;
  auto operator<=>(const JobId&) const = default;
};

/// What is to be done with the jobs of one kind.
struct TaskSpec {
  std::string name{};
  std::vector<std::string> after{};  ///< tasks of which every job must be acknowledged first
  unsigned retries = 0;              ///< so many more attempts after a failure
  unsigned max_crashes = 3;          ///< a job that takes its worker with it so often is given up
  bool one_by_one = false;           ///< the next job only when the one before was acknowledged
  Duration back_off = 1s;            ///< before the second attempt; doubled for each one after it
  Duration longest_back_off = 60s;
};

/// Which worker gets which job, and what becomes of it when it fails or its worker goes away. Knows jobs by number;
/// what they are is with its owner. Takes time as an argument; owns no socket, file or clock. One thread.
///
/// A job is handed out, then either fails or is acknowledged: its result is with the collector. Workers are told apart
/// by numbers that are never used again.
class JobBoard {
 public:
  struct Assignment {
    JobId job;
    unsigned attempt = 1;
  };
  enum class Verdict : std::uint8_t {
    kIgnored,  ///< it was not that worker's any more, or is acknowledged already
    kRetry,    ///< handed out again later
    kDead,     ///< given up
  };
  struct Progress {
    std::uint64_t known = 0;  ///< jobs so far
    std::uint64_t acknowledged = 0;
    std::uint64_t dead = 0;
    std::uint64_t handed_out = 0;  ///< with workers now
    std::uint64_t waiting = 0;     ///< for another attempt
  };

  /// kInvalid names what is wrong: a name that is empty or there twice, a dependency that is no task, a circle.
  static Result<JobBoard> open(std::vector<TaskSpec> tasks, std::uint64_t seed);

  std::size_t tasks() const { return tasks_.size(); }
  const TaskSpec& spec(std::uint32_t task) const { return tasks_.at(task).spec; }
  std::optional<std::uint32_t> find(std::string_view name) const;
  std::string text_of(JobId job) const { return spec(job.task).name + ":" + std::to_string(job.number); }
  std::optional<JobId> parse(std::string_view text) const;

  /// There are so many more jobs of a task; their numbers follow.
  void add_jobs(std::uint32_t task, std::uint64_t count) { tasks_.at(task).known += count; }
  /// There will be no more of it.
  void close(std::uint32_t task) { tasks_.at(task).closed = true; }

  /// Up to `count` jobs for a worker. A job that was with a worker that went away is handed out alone, to one that has
  /// nothing else, so that it is known whose fault it is when that happens again.
  std::vector<Assignment> take(std::uint64_t worker, std::size_t count, MonoTime now);
  /// Whether take() may have something for anybody now.
  bool has_jobs(MonoTime now) const;
  /// The attempt has failed by itself.
  Verdict failed(std::uint64_t worker, JobId job, MonoTime now);
  /// Its result is safe, whoever did it. False: it was acknowledged already, this is a second result.
  bool acknowledged(JobId job);
  /// The worker is gone, with all that it had: what becomes of each.
  std::vector<std::pair<JobId, Verdict>> lost(std::uint64_t worker, MonoTime now);
  /// The worker has had it for too long: as if it had died of it, but it is there still.
  Verdict hung(std::uint64_t worker, JobId job, MonoTime now);
  /// The worker gives it back; nobody is to blame.
  void returned(std::uint64_t worker, JobId job, MonoTime now);
  /// The same for all that it has; it is not there any more. Handed out from `again` on: results may be on their way.
  void released(std::uint64_t worker, MonoTime again);
  /// A dead one gets another round of attempts. False: it is not dead.
  bool requeue(JobId job);

  // ---- what a board of before knew

  /// What a job has been through.
  struct Past {
    unsigned attempts = 0;  ///< begun
    unsigned failures = 0;
    unsigned crashes = 0;
    bool suspect = false;  ///< was with a worker that went away
    bool dead = false;
  };
  /// Nothing: it has not failed yet.
  std::optional<Past> past(JobId job) const;
  /// Before the job is handed out.
  void restore(JobId job, const Past& past, MonoTime now);
  /// The worker has it since before, or still has it although it had been given up for lost. A dead one stays dead, and
  /// one that another worker has stays there.
  void hold(std::uint64_t worker, JobId job);
  /// Nothing of this task is known to be acknowledged any more; what is will be said again.
  void forget_acknowledged(std::uint32_t task);

  /// When take() may have something that it has not now, by time alone.
  std::optional<MonoTime> due() const;
  /// Nothing is left to do: every job of every closed task is acknowledged or dead, or waits for one that is dead.
  bool finished() const;
  /// Tasks that cannot begin because a job before them is dead.
  std::vector<std::uint32_t> blocked() const;

  Progress progress() const;
  Progress progress(std::uint32_t task) const;
  /// Those that were given up.
  std::vector<JobId> dead() const;

 private:
  /// A job that is neither untouched nor done.
  struct Trouble {
    unsigned failures = 0;
    unsigned crashes = 0;
    unsigned attempts = 0;  ///< begun
    bool suspect = false;   ///< was with a worker that went away
    bool blamed = false;    ///< the last crash is this one's since it went out last: taken back if it has survived
    bool dead = false;
    std::optional<MonoTime> again;  ///< waits for another attempt
  };
  struct Task {
    TaskSpec spec;
    std::vector<std::uint32_t> after;
    std::uint64_t known = 0;
    std::uint64_t next = 1;  ///< the first that was never handed out
    bool closed = false;
    NumberSet acknowledged;
    std::map<std::uint64_t, Trouble> troubled;
    std::set<std::pair<MonoTime, std::uint64_t>> retries;   ///< by the time from which on they may be tried again
    std::set<std::pair<MonoTime, std::uint64_t>> suspects;  ///< the same for those that are handed out alone
    std::map<std::uint64_t, std::uint64_t> out;  ///< handed out, neither failed nor acknowledged: to which worker
    std::uint64_t dead = 0;
  };
  struct Worker {
    std::set<JobId> held;
    bool alone = false;     ///< has a suspect
    bool draining = false;  ///< gets nothing until it has nothing, and then a suspect
  };
  bool may_begin(const Task& task) const;
  bool is_blocked(const Task& task) const;
  std::optional<JobId> due_suspect(MonoTime now) const;
  void take_of(std::uint32_t task, std::uint64_t worker, std::size_t count, MonoTime now, std::vector<Assignment>& to);
  void hand_out(std::uint64_t worker, JobId job, std::vector<Assignment>& to);
  bool take_back(std::uint64_t worker, JobId job);
  Verdict try_again(JobId job, Trouble& trouble, bool given_up, MonoTime now);
  Progress progress_of(const Task& task) const;

  std::vector<Task> tasks_;
  std::map<std::uint64_t, Worker> workers_;
  std::uint32_t turn_ = 0;  ///< the task that is looked at first
  std::mt19937_64 random_;
};

}  // namespace fantail::pipeline
