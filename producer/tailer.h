#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/stream/stream_publisher.h"
#include "producer/absences.h"
#include "producer/adoption.h"
#include "producer/all_of.h"
#include "producer/discovery.h"
#include "producer/file_content.h"
#include "producer/known_copies.h"
#include "producer/recollection.h"
#include "producer/registry.h"
#include "producer/start_order.h"
#include "producer/status_report.h"
#include "producer/tailed_file.h"
#include "producer/unpacking.h"

namespace fantail {

struct TailerConfig {
  Duration rescan = 60s;    ///< full walk, in case events were missed; also the period when polling
  Duration ignore_older{};  ///< files not modified for so long are not begun until they are; 0: all are
  StartOrder order = StartOrder::kOldest;
  bool decompress = true;                ///< new streams of archives are what is in these
  std::optional<Duration> delete_after;  ///< files go so long after every durable consumer has them; nothing: never
  Duration hold_time = 24h;              ///< a deleted file is kept readable this long for consumers that miss it
  std::uint64_t hold_bytes = 0;          ///< uncommitted bytes of deleted files kept, in all; 0: no limit
  std::vector<std::string> rotated;      ///< globs: where else known streams are looked for; no source of new ones
  std::size_t open_files = SIZE_MAX;     ///< at a time, at most
  Duration forget_after = 24h;           ///< a durable consumer that is away for so long holds nothing any more
};

struct TailerCounters {
  std::uint64_t streams_created = 0;
  std::uint64_t streams_sealed = 0;
  std::uint64_t given_up_bytes = 0;   ///< uncommitted bytes that can not be read any more
  std::uint64_t streams_adopted = 0;  ///< that go on in a copy of their file
  std::uint64_t walks = 0;            ///< of all directories
  std::uint64_t files_deleted = 0;    ///< by us, after their commit
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
  bool everything_committed();
  /// Everything that is there was handed to the broadcast. Both cost little while they are not.
  bool everything_sent();
  /// For a batch: what is sent completely is told to be complete, so that an unfinished last line is taken too. Not
  /// kept: a later run goes on where files have grown.
  void seal_for_now();
  /// Whether files wait to be deleted that are committed.
  bool removals_pending() const;
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
  /// A new file of which it is not clear yet whether it will be the copy of a stream.
  struct Pending {
    std::string path;
    std::string name;  ///< as in mint()
    MonoTime since{};  ///< it has not grown
    std::uint64_t size = 0;
    std::optional<StreamId> away;  ///< waits for that one's file to be found
    OpenFiles::Guest fd;           ///< what is written to it before it is deleted is not lost
    bool unread = false;           ///< an archive that has to be read through before it can be compared
  };

  /// Of the walk at a start: files that have not been looked at yet.
  struct Start {
    std::vector<FoundFile> found;
    std::size_t next = 0;
    bool first = false;  ///< the very first of this state directory
  };

  Status begin();
  void take_up(StreamRecord record, std::vector<StreamId>& replaced);
  void find_files();
  bool is_quiet(const FileStatus& file) const;
  Status go_on_starting();
  Status end_start();
  void start_rebuilding();
  std::size_t go_on_rebuilding();
  bool finish_rebuilding();
  Tracked& track(StreamRecord record);
  void scan(MonoTime now);
  void plan_next_walk(MonoTime began, Duration took);
  void look_for_those_not_met();
  void look_at(const std::string& path, const std::string& origin = {});
  void refresh(Tracked& tracked);
  bool too_old(const FileStatus& file, const Selection& selection) const;
  void mint(const std::string& path, const std::string& name, FileKey key, const Selection& selection);
  void announce_fresh();
  const std::string& name_of(const Tracked& tracked) const;
  bool is_kin(const Tracked& tracked, const std::string& path) const;
  bool becomes_stream(const std::string& path, const std::string& name, FileKey key);
  bool is_known_copy(const std::string& path, FileKey key, std::uint64_t size);
  struct Place;
  std::optional<Verdict> judge(FileContent& file, const std::string& path, FileKey key, StreamId& of);
  std::optional<Verdict> judge(const Place& place, StreamId& of);
  Verdict judge_as(StreamId id, Newcomer& newcomer, const Place& place);
  void settle_pending();
  bool find_elsewhere(Tracked& tracked);
  bool find_copy(Tracked& tracked, wire::LossReason reason, bool siblings);
  bool is_copy_of_another(const Tracked& tracked, FileKey key, const std::string& path) const;
  bool began_anew(const Tracked& tracked, const std::string& path) const;
  bool fits(const Tracked& tracked, const Place& place, wire::LossReason reason);
  void lose_file(Tracked& tracked, wire::LossReason reason);
  bool adopt(Tracked& tracked, const Place& place, wire::LossReason reason);
  ArchiveContent* unpacked(FileContent& file, const std::string& path, FileKey key);
  std::size_t unpack();
  bool lives_in_archive(const Tracked& tracked) const;
  bool files_wait() const;
  void leave_copy(const Tracked& tracked);
  void look_for(Tracked& tracked);
  void lost_sight(Tracked& tracked);
  void resolve_missing(MonoTime now);
  void reincarnate(Tracked& tracked, wire::LossReason reason);
  void give_up(Tracked& tracked, wire::LossReason reason);
  std::size_t decompress(MonoTime now);
  void look_at_archive(const Tracked& tracked);
  void judge_archive(Tracked& tracked);
  void end_archive(Tracked& tracked);
  void damaged(Tracked& tracked);
  enum class Archived : std::uint8_t { kSame, kChanged, kGone };
  Archived archive_file(Tracked& tracked);
  void rename(Tracked& tracked, const std::string& path);
  void sweep(MonoTime now);
  void sweep_deleted(Tracked& tracked, MonoTime now);
  bool removable(const Tracked& tracked) const;
  void sweep_removals(MonoTime now);
  void remove(Tracked& tracked);
  void drop(Tracked& tracked);
  void make_room();
  void keep_to_descriptors();
  void forget_absent(MonoTime now);
  StreamState state_of(const Tracked& tracked) const;
  void save(MonoTime now);
  StreamRecord record_of(const Tracked& tracked) const;
  std::uint64_t uncommitted_bytes(const Tracked& tracked) const;
  Tracked* find(StreamId id);
  Tracked* at_path(const std::string& path);
  void link_path(Tracked& tracked);
  void unlink_path(const Tracked& tracked);

  TailerConfig config_;
  Discovery& discovery_;
  Registry& registry_;
  CommitLedger& ledger_;
  StreamPublisher* publisher_ = nullptr;
  ArchiveBudget archive_budget_;
  OpenFiles open_files_;
  std::unordered_map<StreamId, std::unique_ptr<Tracked>> tracked_;
  std::unordered_map<FileKey, StreamId> by_key_;  ///< streams whose file is there
  /// By where its file was seen last; that must not change while it is in here.
  struct PathHash {
    using is_transparent = void;
    std::size_t operator()(const Tracked* tracked) const;
    std::size_t operator()(std::string_view path) const;
  };
  struct SamePath {
    using is_transparent = void;
    bool operator()(const Tracked* a, const Tracked* b) const;
    bool operator()(std::string_view path, const Tracked* tracked) const;
  };
  std::unordered_set<Tracked*, PathHash, SamePath> by_path_;
  std::map<StreamId, MonoTime> missing_;  ///< not at its path; since when
  /// Of files that are missing those that are in a watched directory, while they are looked for.
  std::optional<std::map<FileKey, std::string>> elsewhere_;
  std::set<StreamId> deleted_;
  std::deque<StreamId> archives_;  ///< to be decompressed, one after the other; some may not need it any more
  std::set<StreamId> doubtful_;    ///< archives that are incomplete or damaged, or could not be read just now
  MonoTime next_archive_{};        ///< when to go on with the first of them
  std::optional<MonoTime> archive_waits_since_;  ///< for what was decompressed to be sent
  std::set<StreamId> waiting_to_open_;           ///< no descriptor was left for them
  std::set<StreamId> awake_;  ///< what sweep() looks after: files that may be open, and sealed streams
  StreamId last_awake_;       ///< looked after last
  std::map<StreamId, std::optional<MonoTime>> removals_;  ///< to be deleted; since when its commits are on disk
  std::vector<StreamRecord> fresh_;                       ///< found, not yet in the registry
  std::set<FileKey> fresh_keys_;                          ///< of those
  std::size_t ignored_ = 0;                               ///< files that were too old at the last walk
  std::map<FileKey, Pending> pending_;
  KnownCopies copies_;
  Unpacking unpacking_{archive_budget_};
  std::map<FileKey, OpenFiles::Guest> opened_;  ///< of those in `fresh_`
  std::optional<Discovery> rotated_;            ///< no source of new files
  std::set<StreamId> dirty_;
  std::vector<std::size_t> matched_;
  Registry::Commits commits_;                   ///< not saved yet
  std::unique_ptr<Recollection> recollection_;  ///< while the registry is being rebuilt: nothing else is done then
  std::optional<Start> start_;                  ///< until all that was there is looked at
  bool first_start_ = false;                    ///< what is looked at now was there at the very first start
  std::size_t searches_ = 0;                    ///< for copies of deleted files, in this turn
  MonoTime now_{};
  MonoTime next_scan_{};
  MonoTime last_scan_{};
  Duration walk_took_{};  ///< the last one
  MonoTime next_sweep_{};
  MonoTime next_wake_up_{};
  MonoTime next_poll_{};
  MonoTime next_save_{};
  Absences absences_;
  MonoTime next_absences_{};  ///< when they are saved
  AllOf<StreamId> all_sent_;
  AllOf<StreamId> all_committed_;
  TailerCounters counters_;
  std::set<std::string> named_unreadable_;
  log::Repeated save_error_log_;
  log::Repeated descriptors_log_;
};

/// Makes `to` the position of a file that was read further; for a running and for a stopped producer.
Status rewind_file(TailedFile& file, const std::optional<wire::LossReason>& gone, const wire::StreamInfo& info,
                   FileOffset to);

}  // namespace fantail
