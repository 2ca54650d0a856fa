#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "common/base/result.h"
#include "common/rpc/rpc_client.h"
#include "common/stream/stream_subscriber.h"
#include "common/stream/wedge_detector.h"
#include "common/transport/broadcast.h"
#include "common/transport/epgm.h"
#include "common/transport/waiter.h"
#include "state/client.h"
#include "state/watch.h"

namespace fantail::state {

struct WatcherConfig {
  std::string server;  ///< as in ClientConfig, like the next
  std::string key_file;
  WatchSpec spec;
  bool live = false;  ///< only the newest change that was not taken yet, instead of each
  /// Begin with the change that has this revision, 0: with the oldest there is. Nothing: with what comes from now on,
  /// and if the condition holds already, with that.
  std::optional<std::uint64_t> from;
  Duration timeout = 5s;                             ///< of each request to the server, connecting included
  std::string interface;                             ///< epgm: where to join; empty: the interface towards the server
  std::size_t max_waiting_bytes = 16 * 1024 * 1024;  ///< of changes that were not taken; more stay at the server
};

/// One thing to hear of.
struct WatchEvent {
  /// The change; nothing: the condition held already when watching began.
  std::optional<Change> change;
  std::uint64_t revision = 0;  ///< of the change, or of the state in which the condition held
  /// The namespace after it, if the spec needs it; else null. With `live` it may be newer than the change.
  nlohmann::json items;
};

/// Hears every change that its spec asks for, once and in order of revision, across restarts of the server, lost
/// packets and compaction: the changes are a stream like any other. Sleeps while nothing happens. One thread.
class StateWatcher final : public StreamReceiver, public ControlEvents {
 public:
  /// Connects, and fixes the revision to begin with. kRemote "compacted": `from` is older than what is left.
  static rpc::CallResult<std::unique_ptr<StateWatcher>> open(WatcherConfig config);
  ~StateWatcher() override;

  /// kRemote "diverged": the server lost changes that were told here, when its system stopped.
  /// The next event; waits until `deadline`, for ever without one. Nothing: it has passed, or `wake` became readable.
  rpc::CallResult<std::optional<WatchEvent>> next(std::optional<MonoTime> deadline, int wake = -1);
  /// Skips everything up to now, what is on its way as well: goes on with the first change that the server makes behind
  /// this call. Asks the server; on error nothing was skipped.
  rpc::CallResult<void> go_live();

 private:
  explicit StateWatcher(WatcherConfig config) : config_(std::move(config)), filter_(config_.spec) {}
  rpc::CallResult<void> connect();
  rpc::CallResult<void> subscribe(const nlohmann::json& info);
  rpc::CallResult<void> take_snapshot();
  rpc::CallResult<nlohmann::json> call(std::string_view method, const nlohmann::json& arguments,
                                       const rpc::CallTable::OnPartial& on_partial = {});
  void relocate();
  void take(const JournalRecord& record, std::size_t bytes);
  bool full() const;
  void read_on();
  void offer(WatchEvent event, std::size_t bytes);
  void forget_waiting();
  std::size_t turn(MonoTime now);

  // StreamReceiver
  Start on_stream(const NodeView& node, const wire::StreamInfo& info, bool news) override;
  Delivery on_data(StreamId stream, FileOffset offset, std::span<const std::byte> bytes, WallTime) override;
  void on_loss(StreamId stream, ByteRange range, wire::LossReason reason) override;
  void on_sealed(StreamId stream, FileOffset final_length) override;
  void on_beacon(const wire::Beacon&) override {}
  // ControlEvents
  void on_peer_up(PeerId peer, const wire::Peer& who) override;
  void on_peer_down(PeerId peer, std::string_view reason) override;
  void on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) override;

  WatcherConfig config_;
  WatchFilter filter_;
  Context context_;
  std::unique_ptr<rpc::RpcClient> link_;
  std::unique_ptr<Subscriber> subscriber_;     ///< tcp
  std::unique_ptr<EpgmSubscriber> multicast_;  ///< epgm
  WedgeDetector wedge_;
  std::unique_ptr<StreamSubscriber> streams_;
  StreamId following_;             ///< the journal that is read now; zero: none, relocating
  FileOffset begin_;               ///< where in it
  std::string epoch_;              ///< of the history that was seen, as the server names it
  std::string unread_;             ///< of the journal: lines that were not taken in yet
  std::size_t read_ = 0;           ///< how much of it was
  bool ended_ = false;             ///< the journal has no more than that
  std::uint64_t revision_ = 0;     ///< of the last change that was taken in
  std::uint64_t quiet_until_ = 0;  ///< changes up to this one only make the state complete
  bool asking_ = false;            ///< a locate is on its way
  bool in_snapshot_ = false;       ///< the journal's own snapshot is the state to begin with
  bool check_at_start_ = false;    ///< the condition may hold already
  std::optional<rpc::CallError> failed_;
  struct Waiting {
    WatchEvent event;
    std::size_t bytes;
  };
  std::deque<Waiting> waiting_;
  std::size_t waiting_bytes_ = 0;
  bool blocked_ = false;
  SpinPolicy spin_;
};

}  // namespace fantail::state
