#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/signals.h"
#include "common/rpc/rpc_server.h"
#include "common/storage/state_directory.h"
#include "common/transport/context.h"
#include "common/transport/control_link.h"
#include "common/transport/waiter.h"
#include "pipeline/collector_config.h"
#include "pipeline/collector_link.h"
#include "pipeline/distributor_journal.h"
#include "pipeline/job_board.h"
#include "pipeline/job_protocol.h"
#include "pipeline/job_watch.h"
#include "pipeline/task.h"

namespace fantail::pipeline {

struct DistributorConfig {
  std::string endpoint = kDefaultDistributor;  ///< workers come here
  std::string collector = kDefaultCollector;   ///< as workers reach it, too
  std::string key_file;
  std::string state_dir;
  bool anew = false;               ///< what is left of a run before is removed
  bool wait_for_metadata = false;  ///< no job before a metadata source has said what there is to say
  bool details = false;            ///< acknowledgements tell more than the job: Acknowledgement
  Duration claim = 4s;             ///< after a restart, workers get so long to come back with what they have
};

/// Hands the jobs of a run to workers that ask for them, until each one's result is with the collector or the job was
/// given up. What it has handed out is in its journal. One thread; drive it with run(), or with turn() beside others.
class Distributor final : private ControlEvents {
 public:
  /// What happens, for those who show it. May be empty; called between two messages.
  struct Hooks {
    std::function<void(const Acknowledgement&)> on_acknowledged;
    /// JSON, see DeadLetter. At the start for those of before, too.
    std::function<void(JobId, int exit, const std::string& letter)> on_dead;
    /// It is to be done after all.
    std::function<void(JobId)> on_requeued;
    /// Somebody asks for another number of workers, of those who starts them. Without it the request is refused.
    std::function<void(std::uint32_t count)> on_resize;
  };
  /// kInvalid: what is wrong with the tasks; kBusy: the state directory is of another run.
  static Result<std::unique_ptr<Distributor>> open(DistributorConfig config, std::vector<Task> tasks, Hooks hooks = {});
  ~Distributor() override;

  std::size_t turn(MonoTime now);
  void add_to(Waiter& waiter) const;
  MonoTime due(MonoTime now) const;
  /// Until the run is over, or stopped: then what is going on gets up to `drain`. kExitOk: every job has its result.
  /// `each_turn` is called with each turn of the loop, and may end it at once.
  enum class Then : std::uint8_t { kGoOn, kEnd };
  int run(StopSignals& signals, Duration drain, const std::function<Then(MonoTime now)>& each_turn = {});

  /// What tasks, workers and the collector are to know, JSON, where it was configured to wait for that; what others
  /// send as a request. kInvalid: no JSON, or it is there already.
  Status set_metadata(std::string_view json);

  /// Hands out nothing more.
  void stop() { stopped_ = true; }
  bool stopped() const { return stopped_; }
  /// Everything is done, the collector and the workers have been told; or it was stopped and nothing is with workers.
  bool ended() const { return ended_; }
  bool complete() const { return collector_->phase() == CollectorLink::Phase::kFinished; }
  void flush();

  const std::string& address() const { return address_; }
  const std::string& run_id() const { return journal_->run(); }
  const JobBoard& board() const { return *board_; }
  const Task& task(std::uint32_t index) const { return tasks_.at(index); }
  std::string id_of(JobId job) const { return board_->text_of(job); }
  Result<std::string> job_text(JobId job) { return tasks_.at(job.task).jobs->job(job.number); }
  std::size_t workers() const { return by_name_.size(); }
  std::size_t workers_waiting() const { return joining_.size(); }  ///< for the run to begin
  std::uint64_t failures() const { return failures_; }             ///< attempts that failed or were lost
  bool knows_all_jobs() const;
  const std::optional<Error>& failed() const { return failed_; }

 private:
  struct Worker {
    std::string name;
    InstanceId instance;
    std::uint64_t id = 0;  ///< at the board
    std::uint32_t threads = 1;
    bool leaving = false;
  };
  struct Taker {
    rpc::Caller caller;
    std::uint32_t count;
  };
  Distributor(DistributorConfig config, std::vector<Task> tasks, Hooks hooks);
  Status open_state();
  Status connect();

  void on_request(const rpc::Caller& caller, std::string_view method, std::string_view arguments);
  void join(const rpc::Caller& caller, std::string_view arguments);
  void welcome(const rpc::Caller& caller, const JoinMessage& message);
  void take(const rpc::Caller& caller, std::string_view arguments);
  void report(const rpc::Caller& caller, std::string_view arguments);
  void metadata(const rpc::Caller& caller, std::string_view arguments);
  void dead(const rpc::Caller& caller, std::string_view arguments);
  void resize(const rpc::Caller& caller, std::string_view arguments);
  void status(const rpc::Caller& caller);

  /// What the collector has of before is known.
  bool running() const { return collector_->phase() == CollectorLink::Phase::kFollowing; }
  void acknowledged(Acknowledgement ack);
  void begin_running(MonoTime now);
  std::size_t look_for_jobs();
  std::size_t hand_out(MonoTime now);
  bool hand_out_to(const Taker& taker, Worker& worker, MonoTime now);
  /// `seconds`: that the last attempt took, where that is known.
  void settle(JobId job, JobBoard::Verdict verdict, const std::string& worker, int exit, std::string_view error,
              double seconds = 0);
  void watch(JobId job, const Worker& worker, std::size_t held_before, MonoTime now);
  void look_for_hung(MonoTime now);
  void end_claims(MonoTime now);
  bool may_hand_out(MonoTime now) const;
  void look_for_the_end(MonoTime now);
  void forget_worker(PeerId peer, std::string_view reason);

  void on_peer_up(PeerId peer, const wire::Peer& who) override { instances_[peer] = who.instance; }
  void on_peer_down(PeerId peer, std::string_view reason) override;
  void on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) override;

  DistributorConfig config_;
  std::vector<Task> tasks_;
  Hooks hooks_;
  std::optional<StateDirectory> state_;
  std::optional<DistributorJournal> journal_;
  std::optional<JobBoard> board_;
  Context context_;
  std::unique_ptr<ControlLink> control_;
  std::unique_ptr<rpc::RpcServer> rpc_;
  std::unique_ptr<CollectorLink> collector_;
  std::string address_;

  std::optional<std::string> metadata_;  ///< JSON

  std::map<PeerId, InstanceId> instances_;
  std::map<PeerId, Worker> workers_;
  std::map<std::string, PeerId, std::less<>> by_name_;
  std::uint64_t next_worker_ = 1;
  std::vector<std::pair<rpc::Caller, JoinMessage>> joining_;  ///< until the run may begin
  std::deque<Taker> takers_;                                  ///< until there are jobs
  struct Claim {
    std::uint64_t id;
    std::set<JobId> jobs;
  };
  std::map<std::string, Claim, std::less<>> claims_;  ///< by workers of before that have not come back
  std::optional<MonoTime> claims_until_;
  JobWatch watch_;  ///< over those of tasks with a hard timeout

  std::optional<MonoTime> write_again_;  ///< the journal takes nothing: not before this
  log::Repeated write_log_;
  log::Repeated dead_log_;
  std::uint64_t failures_ = 0;
  bool stopped_ = false;
  std::optional<MonoTime> end_by_;  ///< workers get so long to hear that the run is over
  bool ended_ = false;
  std::optional<Error> failed_;
};

}  // namespace fantail::pipeline
