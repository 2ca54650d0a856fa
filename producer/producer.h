#pragma once

#include <memory>
#include <optional>

#include "common/base/signals.h"
#include "common/rpc/admin.h"
#include "common/storage/state_directory.h"
#include "common/transport/broadcast.h"
#include "common/transport/control_link.h"
#include "common/transport/epgm.h"
#include "common/transport/waiter.h"
#include "producer/config.h"
#include "producer/registry.h"
#include "producer/tailer.h"

namespace fantail {

/// The program: files → Tailer → StreamPublisher → broadcast and control links, one loop over bounded duties.
class Producer {
 public:
  /// Opens the state, the sockets and the first look at the files. Errors are for the operator.
  static Result<std::unique_ptr<Producer>> open(const ProducerConfig& config);
  ~Producer();

  /// Runs until a stop signal, or with --once until everything is committed. Returns the exit code.
  int run(StopSignals& signals);

 private:
  explicit Producer(const ProducerConfig& config, StateDirectory state, Registry registry);
  Status connect();
  Status connect_tcp();
  Status connect_epgm();
  BroadcastPort& broadcast();
  Status start();
  void open_admin();
  void answer(const rpc::Caller& caller, const std::string& method, std::string_view arguments);
  Result<std::string> administer(const std::string& method, std::string_view arguments);
  std::string summary() const;
  std::size_t turn(MonoTime now);
  void talk(MonoTime now, std::size_t& work);
  void wait(MonoTime now, StopSignals& signals);
  bool moderate(MonoTime turn_began);
  void hear(MonoTime now, StopSignals& signals);
  bool delivered();
  bool finished();
  bool look_whether_finished(MonoTime now);
  bool out_of_time(MonoTime now) const;

  ProducerConfig config_;
  StateDirectory state_;
  Context context_;
  FramePool pool_;
  Registry registry_;
  CommitLedger ledger_;
  std::unique_ptr<Publisher> publisher_socket_;  ///< tcp
  std::unique_ptr<EpgmPublisher> multicast_;     ///< epgm
  std::unique_ptr<ControlLink> control_;
  std::optional<Discovery> discovery_;
  std::unique_ptr<Tailer> tailer_;
  std::unique_ptr<StreamPublisher> streams_;
  std::unique_ptr<rpc::AdminServer> admin_;  ///< null where it could not be opened
  InstanceId instance_ = random_id<InstanceId>();
  std::string name_;
  std::string advertised_;
  bool moderated_ = false;  ///< the last turn was a live one: sockets and signals need no look at every turn
  MonoTime talked_{};       ///< when they were looked at
  std::uint64_t bytes_sent_seen_ = 0;
  std::optional<MonoTime> stopping_;
  MonoTime next_look_{};         ///< whether it is finished
  bool look_is_due_ = false;     ///< it was put off
  std::uint64_t sealed_at_ = 0;  ///< StreamPublisher::changes() when everything was told to be complete
  bool hurry_ = false;
};

}  // namespace fantail
