#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/stream/stream_publisher.h"
#include "producer/absences.h"
#include "producer/discovery.h"
#include "producer/recollection.h"
#include "producer/registry.h"
#include "producer/status_report.h"
#include "producer/tailed_file.h"

namespace fantail {

struct TailerConfig {
  Duration rescan = 60s;              ///< full walk, in case events were missed; also the period when polling
  bool from_end = false;              ///< files that exist at the very first start begin at their end
  Duration hold_time = 24h;           ///< a deleted file is kept readable this long for consumers that miss it
  std::uint64_t hold_bytes = 0;       ///< uncommitted bytes of deleted files kept, in all; 0: no limit
  std::size_t open_files = SIZE_MAX;  ///< at a time, at most
  Duration forget_after = 24h;        ///< a durable consumer that is away for so long holds nothing any more
};

struct TailerCounters {
  std::uint64_t streams_created = 0;
  std::uint64_t streams_sealed = 0;
  std::uint64_t given_up_bytes = 0;  ///< uncommitted bytes that can not be read any more
  std::uint64_t walks = 0;           ///< of all directories
};

/// Turns files into streams and keeps the two together: which file is which stream (DESIGN: identity), what to do when
/// it grows, moves, shrinks or goes, and how long a deleted one is held. When the registry was lost it first asks
/// consumers for what they know. Feeds the StreamPublisher. One thread.
class Tailer final : public PublisherEvents {
 public:
  Tailer(TailerConfig config, Discovery& discovery, Registry& registry, CommitLedger& ledger);
  ~Tailer() override;

  /// Loads what is known, finds what is there. The publisher must outlive the tailer's last turn().
  Status start(StreamPublisher& publisher, MonoTime now);
  /// A bounded piece: events, looks, holds, saving. Returns how much it did.
  std::size_t turn(MonoTime now);
  MonoTime due() const;
  /// Saves what is not saved yet.
  void save_now();

  /// Every byte of every file was read and is on the disk of a durable consumer, and of every connected one that wants
  /// it.
  bool everything_committed() const;
  /// Everything that is there was handed to the broadcast.
  bool everything_sent() const;
  /// For a batch: what is sent completely is told to be complete, so that an unfinished last line is taken too. Not
  /// kept: a later run goes on where files have grown.
  void seal_for_now();
  std::size_t size() const { return tracked_.size(); }
  /// Positions that wait to be saved: one of each consumer and stream at most, however long that takes.
  std::size_t unsaved_commits() const { return commits_.size(); }
  /// Files that each selection matched at the last walk.
  const std::vector<std::size_t>& matched() const { return matched_; }
  const TailerCounters& counters() const { return counters_; }

  // What an operator sees and steers. Not from within turn().
  void each_state(const std::function<void(const StreamState&)>& take) const;
  /// Those with a sequence behind `after`, in that order, at most `limit`.
  std::vector<StreamState> states(std::uint64_t after, std::size_t limit) const;
  std::size_t open_files_limit() const { return open_files_.limit(); }
  std::map<std::string, Duration> absences() const { return absences_.all(now_); }
  /// It is known no more, and ends for consumers. Its file, if it is there, becomes another stream.
  Status forget(StreamId id);
  /// What is behind `to` is broadcast again. Who has it drops it.
  Status rewind(StreamId id, FileOffset to);
  /// Nothing is held for it any more. kBusy: it is connected.
  Status forget_consumer(const std::string& name);

  void on_broken(StreamId stream, const Error& error) override;
  void on_sent(const wire::StreamInfo& stream) override;
  void on_commit(const std::string& consumer, StreamId stream, FileOffset offset) override;
  void on_consumer(const std::string& durable_name, const Interest& interest) override;
  void on_consumer_up(PeerId peer, const wire::Peer& who) override;
  void on_consumer_down(PeerId peer) override;
  void on_known(PeerId peer, const wire::Streams& known) override;

 private:
  struct Tracked;

  Status begin();
  void start_rebuilding();
  std::size_t go_on_rebuilding();
  bool finish_rebuilding();
  Tracked& track(StreamRecord record);
  void scan(MonoTime now);
  void look_at(const std::string& path, const std::string& origin = {});
  void refresh(Tracked& tracked);
  void mint(const std::string& path, const std::string& name, FileKey key, const Selection& selection);
  void announce_fresh();
  void look_for(Tracked& tracked);
  void lost_sight(Tracked& tracked);
  void resolve_missing(MonoTime now);
  void reincarnate(Tracked& tracked, wire::LossReason reason);
  void give_up(Tracked& tracked, wire::LossReason reason);
  void rename(Tracked& tracked, const std::string& path);
  void sweep(MonoTime now);
  void sweep_deleted(Tracked& tracked, MonoTime now);
  void drop(Tracked& tracked);
  void make_room();
  void give_up_beyond_descriptors();
  void forget_absent(MonoTime now);
  StreamState state_of(const Tracked& tracked) const;
  void save(MonoTime now);
  StreamRecord record_of(const Tracked& tracked) const;
  std::uint64_t uncommitted_bytes(const Tracked& tracked) const;
  Tracked* find(StreamId id);
  Tracked* at_path(const std::string& path);
  void unlink_path(const Tracked& tracked);

  TailerConfig config_;
  Discovery& discovery_;
  Registry& registry_;
  CommitLedger& ledger_;
  StreamPublisher* publisher_ = nullptr;
  OpenFiles open_files_;
  std::unordered_map<StreamId, std::unique_ptr<Tracked>> tracked_;
  std::map<FileKey, StreamId> by_key_;                 ///< streams whose file is there
  std::unordered_map<std::string, StreamId> by_path_;  ///< where it was seen last
  std::map<StreamId, MonoTime> missing_;               ///< not at its path; since when
  std::set<StreamId> deleted_;
  std::vector<StreamRecord> fresh_;  ///< found, not yet in the registry
  std::set<StreamId> dirty_;
  std::vector<std::size_t> matched_;
  Registry::Commits commits_;                   ///< not saved yet
  std::unique_ptr<Recollection> recollection_;  ///< while the registry is being rebuilt: nothing else is done then
  bool first_start_ = false;                    ///< only while it takes up its work
  MonoTime now_{};
  MonoTime next_scan_{};
  MonoTime last_scan_{};
  MonoTime next_sweep_{};
  MonoTime next_save_{};
  Absences absences_;
  MonoTime next_absences_{};  ///< when they are saved
  TailerCounters counters_;
  std::set<std::string> named_unreadable_;
  log::Repeated save_error_log_;
};

/// Makes `to` the position of a file that was read further; for a running and for a stopped producer.
Status rewind_file(TailedFile& file, const std::optional<wire::LossReason>& gone, const wire::StreamInfo& info,
                   FileOffset to);

}  // namespace fantail
