#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/signals.h"
#include "common/rpc/rpc_server.h"
#include "common/storage/state_directory.h"
#include "common/stream/stream_publisher.h"
#include "common/transport/broadcast_side.h"
#include "common/transport/control_link.h"
#include "common/transport/waiter.h"
#include "pipeline/collected_run.h"
#include "pipeline/collector_config.h"
#include "pipeline/result_output.h"

namespace fantail::pipeline {

/// Takes results of workers, each job's once, keeps them in journals, tells the distributor that they are safe, and
/// publishes the journals on results/TASK. One thread; drive it with run(), or with turn() beside others.
class Collector final : public ControlEvents, public PublisherEvents {
 public:
  /// What happens, for programs of one's own. May be empty; called between two messages; must not throw.
  struct Hooks {
    std::function<void(std::string_view metadata)> initialize;  ///< a run has begun, or goes on; JSON
    /// A first result, one line of JSON as ResultRecord makes it. What it returns, JSON or empty, goes into the
    /// acknowledgement. A result that could not be written comes again.
    std::function<std::string(std::string_view id, std::string_view line)> on_result;
    std::function<void()> on_finished;  ///< once for each run
  };
  static Result<std::unique_ptr<Collector>> open(CollectorConfig config, Hooks hooks = {});
  ~Collector() override;

  /// Until its run is finished and told, or a stop signal. The exit code.
  int run(StopSignals& signals);

  std::size_t turn(MonoTime now);
  void add_to(Waiter& waiter) const;
  MonoTime due(MonoTime now);
  /// Its run is over, its results are where they should be, and nobody is waited for.
  bool ended() const { return ended_; }
  void flush();

  const std::string& address() const { return address_; }
  const std::string& published_at() const { return broadcast_->address(); }
  /// The run that was opened last; nullptr: none.
  const CollectedRun* current() const { return current_; }
  std::uint64_t dropped() const { return dropped_; }  ///< second results of a job

 private:
  /// A distributor that is told what is safe.
  struct Follower {
    std::string run;
    std::vector<std::uint64_t> told;  ///< of each task
    bool details = false;
    bool begun = false;
  };
  /// Waits for the results of its turn to be written.
  struct Answer {
    rpc::Caller caller;
    std::uint64_t accepted = 0;
    std::uint64_t dropped = 0;
  };
  explicit Collector(CollectorConfig config, Hooks hooks);
  Status open_state();
  Status connect();
  void publish(CollectedRun& run);
  Status make_current(CollectedRun& run);
  void forget(const std::string& run);

  void on_request(const rpc::Caller& caller, std::string_view method, std::string_view arguments);
  void open_run(const rpc::Caller& caller, std::string_view arguments);
  void collect(const rpc::Caller& caller, std::string_view arguments);
  void follow(const rpc::Caller& caller, std::string_view arguments);
  void finish(const rpc::Caller& caller, std::string_view arguments);
  void result(const rpc::Caller& caller, std::string_view arguments);
  void status(const rpc::Caller& caller);

  void settle(MonoTime now);
  std::size_t tell_followers();
  bool tell(const rpc::Caller& caller, Follower& follower);
  void look_for_the_end(MonoTime now);
  void remove_old(WallTime now);
  bool delivered() const;

  // ControlEvents
  void on_peer_up(PeerId peer, const wire::Peer& who) override { streams_->on_peer_up(peer, who); }
  void on_peer_down(PeerId peer, std::string_view reason) override;
  void on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) override;
  // PublisherEvents
  void on_broken(StreamId stream, const Error& error) override;
  void on_sent(const wire::StreamInfo&) override {}
  void on_commit(const std::string&, StreamId, FileOffset) override {}
  void on_consumer(const std::string&, const Interest&) override {}

  CollectorConfig config_;
  Hooks hooks_;
  std::optional<StateDirectory> state_;
  NodeId node_;
  InstanceId instance_ = random_id<InstanceId>();
  Context context_;
  FramePool pool_;
  CommitLedger ledger_;
  std::optional<BroadcastSide> broadcast_;
  std::unique_ptr<ControlLink> control_;
  std::unique_ptr<StreamPublisher> streams_;
  std::unique_ptr<rpc::RpcServer> rpc_;
  std::string address_;

  std::map<std::string, std::unique_ptr<CollectedRun>> runs_;
  std::uint64_t sequence_ = 0;  ///< of streams
  CollectedRun* current_ = nullptr;
  std::optional<ResultOutput> output_;  ///< of the current run
  std::map<rpc::Caller, Follower> followers_;
  std::vector<Answer> answers_;
  std::uint64_t dropped_ = 0;
  std::optional<MonoTime> drain_until_;    ///< the run is finished
  std::optional<MonoTime> unheard_until_;  ///< its distributor may not have been told that the run is finished
  MonoTime look_for_old_{};
  bool ended_ = false;
  bool failed_ = false;
  log::Repeated write_log_;
};

}  // namespace fantail::pipeline
