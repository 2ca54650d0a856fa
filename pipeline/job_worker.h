#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/base/signals.h"
#include "common/base/unique_fd.h"
#include "common/rpc/rpc_client.h"
#include "common/transport/context.h"
#include "common/transport/waiter.h"
#include "pipeline/job_protocol.h"

namespace fantail::pipeline {

/// One attempt at a job, as the function sees it that does it.
struct Job {
  std::string id;  ///< "TASK:NUMBER"
  const TaskMessage* task = nullptr;
  unsigned attempt = 1;
  std::string data;
  std::string_view metadata;         ///< of the run, JSON
  std::optional<MonoTime> deadline;  ///< by the task's timeout
  int stop_fd = -1;                  ///< readable when the worker is told to end at once
};

/// What came of it.
struct JobOutcome {
  int exit = 0;                 ///< 0: done; else failed, -N by signal N
  std::string result = "null";  ///< JSON, at most kMaxResultBytes
  std::string error{};          ///< of one that failed, for people
};

struct JobWorkerConfig {
  std::string distributor{};  ///< its address
  std::string name{};         ///< unlike every other worker's
  std::uint32_t threads = 1;
  std::string key_file{};
};

/// Does jobs: takes them from a distributor, sends results to the collector that this names, and tells the distributor
/// of failures. Jobs run on threads of their own, links live on the loop. A result is kept until the collector has it.
class JobWorker {
 public:
  /// On a thread of the worker; what it throws is a failure. A task's timeout does not end it: it should look at
  /// Job::deadline and Job::stop_fd.
  using Execute = std::function<JobOutcome(const Job&)>;
  /// May be empty; must not throw.
  struct Hooks {
    /// On the loop, before the first job of a run and before any thread has begun.
    std::function<void(std::string_view metadata)> init_worker;
    /// On each thread, before its first job; `index` from 0 on.
    std::function<void(std::uint32_t index)> init_thread;
    /// On the loop, when a job has come, before a thread gets it.
    std::function<void(const Job&)> on_job;
  };

  static Result<std::unique_ptr<JobWorker>> open(JobWorkerConfig config, Execute execute, Hooks hooks = {});
  ~JobWorker();

  /// Until the run is over or a signal came: what is going on gets up to `drain`, what was not begun goes back.
  int run(StopSignals& signals, Duration drain);

  /// To be driven beside others, or on a thread of its own: turn() until ended(), asleep in between.
  std::size_t turn(MonoTime now);
  void add_to(Waiter& waiter) const;
  MonoTime due(MonoTime now);
  /// No more jobs: what is going on is finished, what was not begun goes back; then it has ended.
  void drain();
  /// The run is over and all of ours is told.
  bool ended() const;
  const std::optional<Error>& failed() const { return failed_; }

 private:
  struct Held {
    Job job;
    JobId id;
    std::shared_ptr<const WelcomeMessage> run;  ///< what `job` points into
  };
  struct Done {
    JobId id;
    std::string job_id;
    std::string task;
    unsigned attempt;
    double started;
    double seconds;
    JobOutcome outcome;
  };
  JobWorker(JobWorkerConfig config, Execute execute, Hooks hooks);
  Status connect();
  std::size_t ask(MonoTime now);
  void join();
  void on_welcome(const WelcomeMessage& welcome);
  void take();
  void on_jobs(JobsMessage message);
  std::uint32_t wanted() const;
  std::size_t gather();
  void send_results();
  void report();
  void work(std::stop_token stop, std::uint32_t index);
  JobOutcome attempt(const Job& job);

  JobWorkerConfig config_;
  Execute execute_;
  Hooks hooks_;
  Context context_;
  std::unique_ptr<rpc::RpcClient> distributor_;
  std::unique_ptr<rpc::RpcClient> collector_;
  std::shared_ptr<const WelcomeMessage> run_;
  std::optional<std::uint64_t> joined_at_;  ///< the connection on which we have joined
  bool joining_ = false;
  bool taking_ = false;
  bool sending_ = false;
  bool reporting_ = false;
  bool over_ = false;                      ///< the run is
  bool draining_ = false;                  ///< no more jobs, please
  std::optional<MonoTime> refused_since_;  ///< our name is taken
  std::optional<MonoTime> ask_again_;
  std::optional<MonoTime> send_again_;
  std::map<JobId, unsigned> held_;  ///< every job that is not told yet, with its attempt
  std::deque<Done> results_;        ///< to be sent
  ReportMessage report_;
  std::size_t sent_ = 0;  ///< of results_, with the collector now
  double average_ = 0;    ///< seconds for one job, lately
  std::optional<Error> failed_;
  log::Repeated problem_log_;
  UniqueFd wake_fd_;
  UniqueFd stop_fd_;

  std::mutex mutex_;
  std::condition_variable_any there_is_work_;
  std::deque<Held> queue_;  // guarded by mutex_, like all below
  std::vector<Done> done_;
  std::uint32_t running_ = 0;
  bool woken_ = false;
  std::vector<std::jthread> threads_;  ///< of the loop; last, so that they end first
};

}  // namespace fantail::pipeline
