#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "common/base/signals.h"
#include "common/rpc/admin.h"
#include "common/storage/state_directory.h"
#include "common/stream/stream_subscriber.h"
#include "common/stream/wedge_detector.h"
#include "common/transport/broadcast.h"
#include "common/transport/control_link.h"
#include "common/transport/epgm.h"
#include "common/transport/waiter.h"
#include "consumer/config.h"
#include "consumer/cursor_store.h"
#include "consumer/known_streams.h"
#include "consumer/progress.h"
#include "consumer/sink.h"
#include "consumer/sync_worker.h"

namespace fantail {

class StdoutSink;

/// The program: broadcast and control links → StreamSubscriber → sinks, and the commit cycle: sinks flush, a worker
/// makes files durable, cursors are stored, producers are told.
class Consumer final : public StreamReceiver {
 public:
  static Result<std::unique_ptr<Consumer>> open(const ConsumerConfig& config);
  ~Consumer() override;

  /// Runs until a stop signal or the end that --once or --idle-exit asks for. Returns the exit code.
  int run(StopSignals& signals);

  void expect(const NodeView& node, std::span<const wire::StreamInfo* const> streams) override;
  Start on_stream(const NodeView& node, const wire::StreamInfo& info, bool news) override;
  Delivery on_data(StreamId stream, FileOffset offset, std::span<const std::byte> bytes, WallTime read_time) override;
  void on_loss(StreamId stream, ByteRange range, wire::LossReason reason) override;
  void on_sealed(StreamId stream, FileOffset final_length) override;
  void on_info(const NodeView& node, const wire::StreamInfo& info) override;
  std::optional<bool> tell_known(const NodeView& node, std::uint64_t after, StreamsPage& page) override;
  void on_beacon(const wire::Beacon& beacon) override;

 private:
  struct Entry;
  explicit Consumer(const ConsumerConfig& config);
  Status open_state();
  Status open_sinks();
  Status connect();
  Status connect_tcp();

  std::size_t turn(MonoTime now, bool talk);
  void wait(MonoTime now, StopSignals& signals);
  StreamMeta describe(const NodeView& node, const wire::StreamInfo& info);
  Status catch_up(Entry& entry);
  void blocked_by(const Error& error);
  void retry_blocked(MonoTime now);
  void flush(MonoTime now);
  void watch_multicast(MonoTime now);
  void cycle(MonoTime now);
  enum class Sync : std::uint8_t { kBegun, kNothingToDo, kNotNow };
  Sync begin_sync();
  bool record_losses();
  bool finish_sync();
  bool store_checkpoint();
  bool settle_all(Duration limit, StopSignals& signals);
  bool finished(MonoTime now);
  void show_progress(MonoTime now);
  void open_admin();
  void administer(const rpc::Caller& caller, const std::string& method, std::string_view arguments);
  std::string summary() const;
  std::string streams_page(const std::string& after) const;
  void rewind_what_waits();
  Status rewind(const std::vector<StreamId>& streams, FileOffset to, std::size_t& unlisted);

  ConsumerConfig config_;
  std::optional<StateDirectory> state_;
  std::optional<CursorStore> store_;
  std::optional<KnownStreams> known_;  ///< where there is a store
  Context context_;
  std::unique_ptr<Subscriber> subscriber_socket_;  ///< tcp
  std::unique_ptr<EpgmSubscriber> multicast_;      ///< epgm
  WedgeDetector wedge_;
  struct Control {
    std::string address;
    PeerId peer;
  };
  std::map<NodeId, Control> controls_;  ///< epgm: control links that beacons told of
  BroadcastInlet* inlet_ = nullptr;
  std::unique_ptr<ControlLink> control_;
  std::vector<std::unique_ptr<Sink>> sinks_;
  StdoutSink* stdout_ = nullptr;
  std::unordered_map<StreamId, std::unique_ptr<Entry>> entries_;
  std::unique_ptr<StreamSubscriber> streams_;
  std::unique_ptr<rpc::AdminServer> admin_;  ///< null where there is no state, or it could not be opened
  struct Rewind {
    rpc::Caller caller;
    std::vector<StreamId> streams;
    FileOffset to;
  };
  std::vector<Rewind> rewinds_;  ///< wait for the checkpoint that is under way; its callers are few
  SyncWorker worker_;
  std::vector<CursorStore::SinkCheckpoint> syncing_;
  std::map<NodeId, std::uint64_t> known_sequences_;
  std::map<NodeId, std::uint64_t> syncing_sequences_;  ///< stored with `syncing_`, never before the starts in it
  std::vector<StreamId> begun_;                        ///< opened without a stored cursor, its start is not stored yet
  std::vector<CursorStore::Loss> unrecorded_;          ///< losses that the store does not have yet
  std::set<StreamId> waiting_;                         ///< entries with something that a sink did not take
  std::optional<MonoTime> retry_at_;                   ///< blocked until then
  log::Repeated blocked_log_;
  Progress progress_;
  bool on_terminal_ = false;
  bool storing_ = false;  ///< the files of `syncing_` are durable, its cursors are not yet
  bool failed_ = false;
  MonoTime next_sync_{};
  MonoTime next_progress_{};
  MonoTime next_check_{};
  MonoTime last_data_{};
  bool called_ = true;  ///< a control link or a signal has something
  MonoTime talked_{};   ///< when those were looked at
  std::uint64_t delivered_seen_ = 0;
};

}  // namespace fantail
