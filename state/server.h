#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/signals.h"
#include "common/rpc/rpc_server.h"
#include "common/storage/state_directory.h"
#include "common/stream/stream_publisher.h"
#include "common/transport/broadcast_side.h"
#include "common/transport/control_link.h"
#include "state/journal.h"
#include "state/server_config.h"
#include "state/snapshot_sender.h"
#include "state/store.h"

namespace fantail::state {

/// fantail-state serve: requests → StateStore → Journal → answers and broadcast. One loop; what came in within one turn
/// is made durable together, and nothing is answered or broadcast before.
class StateServer final : public ControlEvents, public PublisherEvents {
 public:
  /// Opens state and sockets. Errors are for the operator.
  static Result<std::unique_ptr<StateServer>> open(const ServerConfig& config);
  ~StateServer() override;

  /// Until a stop signal. Returns the exit code.
  int run(StopSignals& signals);

 private:
  explicit StateServer(const ServerConfig& config);
  Status open_state();
  Status connect();
  Status listen();

  std::size_t turn(MonoTime now);
  void wait(MonoTime now, StopSignals& signals);

  void on_request(const rpc::Caller& caller, std::string_view method, std::string_view arguments);
  void operate(const rpc::Caller& caller, std::string_view method, std::string_view arguments);
  std::uint64_t oldest_revision();
  std::uint64_t refused_keys() const;
  void info(const rpc::Caller& caller);
  void ping(const rpc::Caller& caller, std::string_view arguments);
  void locate(const rpc::Caller& caller, std::string_view arguments);
  void snapshot(const rpc::Caller& caller, std::string_view arguments);
  void session(const rpc::Caller& caller, std::string_view method, std::string_view arguments);

  void settle(MonoTime now);
  void end_sessions(MonoTime now);
  std::size_t compact(MonoTime now);
  void publish(JournalFile& file);
  InstanceId instance_of(PeerId peer) const;

  // ControlEvents
  void on_peer_up(PeerId peer, const wire::Peer& who) override;
  void on_peer_down(PeerId peer, std::string_view reason) override;
  void on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) override;
  // PublisherEvents
  void on_broken(StreamId stream, const Error& error) override;
  void on_sent(const wire::StreamInfo&) override {}
  void on_commit(const std::string&, StreamId, FileOffset) override {}
  void on_consumer(const std::string&, const Interest&) override {}

  /// Waits for the changes of its turn to be durable.
  struct Answer {
    rpc::Caller caller;
    tl::expected<std::string, OpError> result;
  };
  ServerConfig config_;
  std::optional<StateDirectory> state_;
  StateStore store_;
  std::optional<Journal> journal_;
  NodeId node_;
  InstanceId instance_ = random_id<InstanceId>();
  Context context_;
  FramePool pool_;
  CommitLedger ledger_;
  std::optional<BroadcastSide> broadcast_;
  std::unique_ptr<ControlLink> control_;
  std::unique_ptr<StreamPublisher> streams_;
  std::unique_ptr<rpc::RpcServer> rpc_;
  std::string advertised_;  ///< to consumers that only know the multicast group; empty: nothing
  std::map<PeerId, InstanceId> peers_;
  std::vector<Answer> answers_;
  std::vector<Change> changes_;  ///< of one turn; kept for its memory
  std::unique_ptr<SnapshotSender> snapshots_;
  struct Session {
    Duration lease;
    MonoTime until;
  };
  std::map<SessionId, Session> sessions_;
  std::optional<StreamId> previous_;  ///< published beside the current one
  MonoTime settle_again_{};           ///< the journal takes nothing: not before this
  MonoTime compact_again_{};
  bool failed_ = false;
  log::Repeated journal_log_;
  SpinPolicy spin_;
  std::uint64_t requests_before_ = 0;  ///< when it waited last
};

}  // namespace fantail::state
