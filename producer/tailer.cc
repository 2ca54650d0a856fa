#include "producer/tailer.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "common/base/signals.h"
#include "producer/tracked.h"

namespace fantail {
namespace {

constexpr Duration kWalkSpacing = 200ms;     // however many directories come and go
constexpr int kWalksShare = 2;               // then they take one part in so many of the time, at most
constexpr int kPollsShare = 10;              // the same of walks without which nothing is noticed
constexpr int kWalksRest = 1000;             // times as long as a walk took, so that many files cost no processor
constexpr int kWalksRestAtMost = 10;         // times the period that is wanted
constexpr Duration kMissingGrace = 1s;       // a rename shows as two events, possibly of two directories
constexpr Duration kPollInterval = 1s;       // of directories of which no events tell
constexpr std::size_t kSearchesPerTurn = 4;  // of directories, for copies of files that were deleted

}  // namespace

Tailer::Tailer(TailerConfig config, Discovery& discovery, Registry& registry, CommitLedger& ledger)
    : config_(std::move(config)),
      discovery_(discovery),
      registry_(registry),
      ledger_(ledger),
      open_files_(config_.open_files) {
  open_files_.on_full([this] { make_room(); });
  if (config_.rotated.empty()) return;
  std::vector<Selection> places;
  for (const std::string& glob : config_.rotated) {
    if (auto parsed = Glob::parse(glob)) places.push_back({std::move(*parsed), {}});
  }
  if (auto rotated = Discovery::open(std::move(places), {}, true)) rotated_.emplace(std::move(*rotated));
}
Tailer::~Tailer() = default;

Tailer::Tracked* Tailer::find(StreamId id) {
  const auto found = tracked_.find(id);
  return found == tracked_.end() ? nullptr : found->second.get();
}

Tailer::Tracked* Tailer::at_path(const std::string& path) {
  const auto found = by_path_.find(std::string_view(path));
  return found == by_path_.end() ? nullptr : *found;
}

std::size_t Tailer::PathHash::operator()(std::string_view path) const { return std::hash<std::string_view>{}(path); }
std::size_t Tailer::PathHash::operator()(const Tracked* tracked) const { return (*this)(tracked->file.path()); }
bool Tailer::SamePath::operator()(const Tracked* a, const Tracked* b) const { return (*this)(a->file.path(), b); }
bool Tailer::SamePath::operator()(std::string_view path, const Tracked* tracked) const {
  return tracked->file.path() == path;
}

void Tailer::link_path(Tracked& tracked) {
  if (const auto other = by_path_.find(&tracked); other != by_path_.end()) by_path_.erase(other);
  by_path_.insert(&tracked);
}

// ---- start and turn

Status Tailer::start(StreamPublisher& publisher, MonoTime now) {
  publisher_ = &publisher;
  now_ = now;
  if (!registry_.rebuilding()) return begin();
  start_rebuilding();
  return {};
}

Tailer::Tracked& Tailer::track(StreamRecord record) {
  auto tracked = std::make_unique<Tracked>(record);
  Tracked& ref = *tracked;
  ref.active = now_;
  ref.file.count_in(open_files_, ref.id);
  tracked_[ref.id] = std::move(tracked);
  if (ref.sealed) awake_.insert(ref.id);
  if (ref.slot == PositionFile::kNone && !ref.sealed) ref.slot = registry_.slot_for(ref.id, record.fingerprint);
  const bool nothing_read = record.fingerprint.cursor.raw == 0 && record.fingerprint.head_length == 0;
  if (ref.archive || (config_.decompress && nothing_read)) ref.file.read_archive(archive_budget_, ref.archive);
  const bool readable = !ref.gone || ref.archive_damaged();
  publisher_->add(std::move(record.info), readable ? &ref.file : nullptr,
                  ref.gone.value_or(wire::LossReason::kUnknown));
  if (ref.archive_damaged()) publisher_->cut_off(ref.id, *ref.gone);
  return ref;
}

/// What consumers are told its path is.
const std::string& Tailer::name_of(const Tracked& tracked) const { return publisher_->info(tracked.id)->path; }

std::size_t Tailer::turn(MonoTime now) {
  now_ = now;
  searches_ = 0;
  if (recollection_) return go_on_rebuilding();
  std::size_t work = 0;
  Discovery::Changes changes;
  discovery_.read_events(changes);
  if (now >= next_sweep_) discovery_.check_links(changes);
  work += changes.touched.size();
  // Who arrives may be who left from somewhere else, and is older than who is there now.
  for (const auto& [path, origin] : changes.origins) {
    if (changes.arrived.contains(path)) look_at(path, origin);
  }
  for (const std::string& path : changes.arrived) {
    if (!changes.origins.contains(path)) look_at(path);
  }
  for (const std::string& path : changes.touched) {
    if (changes.arrived.contains(path)) continue;
    Tracked* tracked = at_path(path);
    if (tracked == nullptr) {
      look_at(path);
      continue;
    }
    refresh(*tracked);
    if (changes.left.contains(path) && at_path(path) == tracked) look_for(*tracked);
  }
  if (changes.rescan) {
    next_scan_ = std::min(next_scan_, last_scan_ + std::max<Duration>(kWalkSpacing, walk_took_ * kWalksShare));
  }
  if (start_) {
    ++work;
    if (auto ok = go_on_starting(); !ok && save_error_log_.occurred(now)) {
      log::error("cannot record that the first start is done", {{"error", ok.error()}});
    }
  }
  if (now >= next_scan_ && !start_) scan(now);
  if (!discovery_.polled().empty() && now >= next_poll_) {
    const MonoTime began = mono_now();
    discovery_.poll([this](const std::string& path, const Selection&) { look_at(path); });
    next_poll_ = now + std::max(std::min(kPollInterval, config_.rescan), (mono_now() - began) * kPollsShare);
  }
  if (!start_) announce_fresh();
  if (!missing_.empty() && !start_) resolve_missing(now);
  work += unpack();
  if (!pending_.empty()) {
    settle_pending();
    announce_fresh();
  }
  work += decompress(now);
  if (open_files_.too_many()) keep_to_descriptors();
  if (now >= next_sweep_) sweep(now);
  if (now >= next_save_) save(now);
  return work;
}

MonoTime Tailer::due() const {
  if (recollection_) return recollection_->due(now_);
  MonoTime at = std::min({next_scan_, next_sweep_, next_save_});
  if (!archives_.empty()) at = std::min(at, next_archive_);
  if (!discovery_.polled().empty()) at = std::min(at, next_poll_);
  for (const auto& [id, since] : missing_) at = std::min(at, since + kMissingGrace);
  for (const auto& [key, pending] : pending_) {
    if (!pending.unread) at = std::min(at, std::max(pending.since + kMissingGrace, now_ + 10ms));
  }
  if (const auto archive = unpacking_.due()) at = std::min(at, *archive);
  return at;
}

void Tailer::scan(MonoTime now) {
  last_scan_ = now;
  ++counters_.walks;
  ignored_ = 0;
  const MonoTime began = mono_now();
  matched_ = discovery_.scan([this](const std::string& path, const Selection&) { look_at(path); });
  arrange(fresh_, config_.order);
  look_for_those_not_met();
  plan_next_walk(now, mono_now() - began);
}

void Tailer::plan_next_walk(MonoTime began, Duration took) {
  walk_took_ = took;
  if (discovery_.polling()) {
    next_scan_ = began + std::max<Duration>(config_.rescan, took * kPollsShare);
  } else {
    next_scan_ = began + std::max(config_.rescan, std::min(took * kWalksRest, config_.rescan * kWalksRestAtMost));
  }
}

/// Files whose names the last walk did not come by: names that no pattern takes, and those that are gone without an
/// event.
void Tailer::look_for_those_not_met() {
  std::vector<StreamId> not_met;
  for (const Tracked* tracked : by_path_) {
    if (tracked->met_in_walk != counters_.walks) not_met.push_back(tracked->id);
  }
  copies_.drop_gone(counters_.walks);
  for (const StreamId id : not_met) {
    Tracked* tracked = find(id);
    if (tracked == nullptr || tracked->sealed_since) continue;
    look_for(*tracked);
    if (!missing_.contains(id)) refresh(*tracked);
  }
}

// ---- which file is which stream

/// `origin`: the name it had a moment ago, if it was renamed. It may be gone from there before anybody looked.
void Tailer::look_at(const std::string& path, const std::string& origin) {
  const auto file = status_of(path);
  const FileKey* key = file ? &file->key : nullptr;
  Tracked* here_before = at_path(path);
  if (here_before != nullptr && (!key || here_before->key != *key)) lost_sight(*here_before);
  if (!key) return;
  if (const auto known = by_key_.find(*key); known != by_key_.end()) {
    if (Tracked* tracked = find(known->second)) {
      tracked->met_in_walk = counters_.walks;
      if (tracked->file.path() != path) {
        // Links give one file several names; the first stays its name while it leads there.
        const auto old = key_of(tracked->file.path());
        if (!old || *old != *key) rename(*tracked, path);
      }
      missing_.erase(known->second);
      if (tracked->file.unchanged_since_look(*file)) return;
      return refresh(*tracked);
    }
  }
  if (fresh_keys_.contains(*key)) return;
  const Selection* selection = discovery_.selection_of(path);
  const bool by_origin = selection == nullptr && !origin.empty();
  if (by_origin) selection = discovery_.selection_of(origin);
  if (selection == nullptr) return;
  if (too_old(*file, *selection)) {
    ++ignored_;
    return;
  }
  const std::string& name = by_origin ? origin : path;
  if (!first_start_ && !becomes_stream(path, name, *key)) return;
  mint(path, name, *key, *selection);
}

void Tailer::rename(Tracked& tracked, const std::string& path) {
  log::info("file renamed", {{"stream", tracked.id}, {"path", tracked.file.path()}, {"to", path}});
  unlink_path(tracked);
  tracked.file.set_path(path);
  link_path(tracked);
  if (lives_in_archive(tracked)) {
    copies_.rename(tracked.key, path);
  }
  tracked.astray = false;
  dirty_.insert(tracked.id);
}

void Tailer::unlink_path(const Tracked& tracked) {
  const auto found = by_path_.find(std::string_view(tracked.file.path()));
  if (found != by_path_.end() && *found == &tracked) by_path_.erase(found);
}

/// Something may have happened to its bytes.
void Tailer::refresh(Tracked& tracked) {
  const StreamId id = tracked.id;
  if (tracked.sealed_since && tracked.ended_with_archive()) awake_.insert(id);
  if (tracked.sealed_since) return;
  const wire::StreamInfo* info = publisher_->info(id);
  if (info == nullptr) return;
  awake_.insert(id);
  // New bytes are read at once, unless others wait before them or nobody listens: then the look itself has to tell
  // whose bytes they are. The same when it is opened again: the inode may be another file's by now.
  const bool verify = info->sent < info->head || !tracked.file.is_open() || !publisher_->wanted(id);
  const auto look = tracked.file.look(verify);
  if (!look) {
    if (look.error().code == ErrorCode::kReplaced) return reincarnate(tracked, wire::LossReason::kTruncated);
    if (look.error().code == ErrorCode::kNotFound) return lost_sight(tracked);
    if (look.error().code == ErrorCode::kBusy) {
      waiting_to_open_.insert(id);
      if (descriptors_log_.occurred(now_)) {
        log::warn("too many open files, others wait for their turn; raise the limit (LimitNOFILE=, ulimit -n)",
                  {{"waiting", waiting_to_open_.size()}, {"limit", descriptor_limit()}});
      }
      return;
    }
    if (named_unreadable_.insert(tracked.file.path()).second) {
      log::warn("cannot read a file, will keep trying", {{"path", tracked.file.path()}, {"error", look.error()}});
    }
    return;
  }
  named_unreadable_.erase(tracked.file.path());
  tracked.seen = true;
  if (verify) tracked.verified_end = {look->size};
  if (look->size > info->head.raw) {
    tracked.active = now_;
    dirty_.insert(id);
    // It was empty when it was found: as in mint(), and before its first byte is sent.
    const Fingerprint& known = tracked.file.fingerprint();
    if (known.cursor.raw == 0 && known.head_length == 0 && tracked.file.learn_head()) save(now_);
    publisher_->advance(id, {look->size});
  }
  look_at_archive(tracked);
  tracked.names = look->names;
  if (look->deleted() && !tracked.deleted_since) {
    // It is held open, so nothing is lost without: when many are deleted at once not every directory is read each time.
    const bool siblings = ++searches_ <= kSearchesPerTurn;
    if (find_copy(tracked, wire::LossReason::kDeleted, siblings)) return;
    tracked.deleted_since = now_;
    deleted_.insert(id);
    unlink_path(tracked);
    missing_.erase(id);
    log::info("file deleted, holding it",
              {{"stream", id}, {"path", tracked.file.path()}, {"bytes", uncommitted_bytes(tracked)}});
  }
}

/// A file that begins at its end needs no such rule: nothing old of it is sent anyway.
bool Tailer::too_old(const FileStatus& file, const Selection& selection) const {
  if (config_.ignore_older == Duration::zero() || (first_start_ && selection.from_end)) return false;
  return wall_now().ns - file.modified.ns > config_.ignore_older.count();
}

/// `name`: the path that consumers are told.
void Tailer::mint(const std::string& path, const std::string& name, FileKey key, const Selection& selection) {
  StreamRecord record;
  record.info.stream = random_id<StreamId>();
  record.info.sequence = registry_.next_sequence();
  record.info.topic = selection.topic;
  record.info.path = name;
  record.info.first_seen = wall_now();
  record.current_path = path;
  record.key = key;
  // Its beginning is recorded with it, so that what is there after a kill is not taken for it by its inode alone. What
  // cannot be read yet is told when it is looked at.
  TailedFile file(path, key, {});
  if (config_.decompress) file.read_archive(archive_budget_, std::nullopt);
  if (first_start_ && selection.from_end) {
    if (const auto at = file.skip_to_end()) record.info.base = record.info.sent = record.info.head = *at;
  } else {
    (void)file.learn_head();
  }
  record.fingerprint = file.fingerprint();
  record.archive = file.archive_mark();
  record.info.file = identity_of(key, record.fingerprint);
  if (auto fd = open_files_.keep(file.take_descriptor())) {
    opened_.insert_or_assign(key, std::move(fd));
  } else if (!record.archive && !file.undecided()) {
    // Reading it opens it.
    record.info.head = std::max(record.info.head, FileOffset{file.file_bytes()});
  }
  fresh_keys_.insert(key);
  fresh_.push_back(std::move(record));
}

/// Makes found files into streams: first in the registry, then for the world.
void Tailer::announce_fresh() {
  if (fresh_.empty()) return;
  if (auto ok = registry_.insert(fresh_, start_ && start_->first); !ok) {
    if (const auto n = save_error_log_.occurred(now_)) {
      log::error("cannot record new files, they wait", {{"error", ok.error()}, {"count", *n}});
    }
    return;
  }
  fresh_keys_.clear();
  std::vector<StreamId> announced;
  for (StreamRecord& record : std::exchange(fresh_, {})) {
    Tracked& tracked = track(std::move(record));
    const StreamId id = tracked.id;
    tracked.met_in_walk = counters_.walks;
    by_key_[tracked.key] = id;
    if (auto opened = opened_.extract(tracked.key)) tracked.file.keep_open(opened.mapped().take());
    link_path(tracked);
    ++counters_.streams_created;
    log::info("file found", {{"stream", id}, {"topic", publisher_->info(id)->topic}, {"path", tracked.file.path()}});
    announced.push_back(id);
  }
  // Not before all are known: a look may find that another of them is at the path by now.
  for (const StreamId id : announced) {
    Tracked* tracked = find(id);
    if (tracked == nullptr) continue;
    const wire::StreamInfo& info = *publisher_->info(id);
    if (tracked->file.is_open() || info.sent == info.head) {
      refresh(*tracked);
    } else {
      tracked->seen = true;  // when it was found
      awake_.insert(id);
    }
  }
}

/// Whether it is where it was.
void Tailer::look_for(Tracked& tracked) {
  const auto there = key_of(tracked.file.path());
  if (!there || *there != tracked.key) lost_sight(tracked);
}

/// It is not where it was: renamed, moved away or deleted. Harmless if that was seen already.
void Tailer::lost_sight(Tracked& tracked) {
  const StreamId id = tracked.id;
  if (tracked.deleted_since || tracked.sealed_since || missing_.contains(id)) return;
  const auto there = find_in_directory(std::filesystem::path(tracked.file.path()).parent_path(), {tracked.key});
  if (!there.empty()) {
    rename(tracked, there.begin()->second);
    return refresh(tracked);
  }
  unlink_path(tracked);
  missing_[id] = now_;
  if (tracked.file.is_open()) refresh(tracked);  // tells whether any name is left
}

void Tailer::resolve_missing(MonoTime now) {
  elsewhere_.reset();
  for (const auto& [id, since] : std::map(missing_)) {
    Tracked* tracked = find(id);
    if (tracked == nullptr) {
      missing_.erase(id);
      continue;
    }
    if (now - since < kMissingGrace) continue;
    if (unpacking_.is_awaited_by(id)) {
      missing_[id] = now;
      continue;
    }
    if (last_scan_ < since + kMissingGrace / 2) {
      scan(now);
      if (!missing_.contains(id)) continue;
    }
    missing_.erase(id);
    if (tracked->file.is_open()) {
      // It has a name in a place that nobody watches: the descriptor is all that is needed.
      std::array<char, 4096> target{};
      const std::string link = "/proc/self/fd/" + std::to_string(tracked->file.fd());
      const ssize_t n = ::readlink(link.c_str(), target.data(), target.size());
      const std::string place(target.data(), n > 0 ? static_cast<std::size_t>(n) : 0);
      // Of another hard link the kernel does not know the name.
      if (!place.empty() && !place.ends_with(" (deleted)")) rename(*tracked, place);
      tracked->astray = true;
      refresh(*tracked);
    } else if (!find_elsewhere(*tracked)) {
      const auto reason = tracked->without_file.value_or(wire::LossReason::kDeleted);
      if (find_copy(*tracked, reason, true)) continue;
      if (unpacking_.is_awaited_by(id)) {
        missing_[id] = now;
      } else {
        give_up(*tracked, reason);
      }
    }
  }
}

/// The file holds other bytes than those of its stream: that stream has ended, a new one begins.
void Tailer::reincarnate(Tracked& tracked, wire::LossReason reason) {
  const std::string path = tracked.file.path();
  log::info("file was truncated or rewritten",
            {{"stream", tracked.id}, {"path", path}, {"offset", tracked.file.fingerprint().cursor}});
  lose_file(tracked, reason);
  look_at(path);
  announce_fresh();
  // It went by a name that no pattern takes; another of its names may be one that is taken.
  if (discovery_.selection_of(path) == nullptr) next_scan_ = now_;
}

/// No byte of it can be read any more.
void Tailer::give_up(Tracked& tracked, wire::LossReason reason) {
  const StreamId id = tracked.id;
  const wire::StreamInfo* info = publisher_->info(id);
  // Bytes that were seen to be there but not read in time are part of the stream: they are a loss, not silence. After a
  // truncation the head may be that of the new content already.
  FileOffset end = std::max(tracked.file.fingerprint().cursor, tracked.verified_end);
  if (reason != wire::LossReason::kTruncated && info != nullptr) end = std::max(end, info->head);
  if (tracked.sealed && info != nullptr) end = info->head;
  // What is left of an archive is a loss of unknown length: one byte stands for it.
  if (!tracked.sealed_since && !tracked.file.all_decompressed()) end = end + 1;
  if (tracked.copied_to) leave_copy(tracked);
  publisher_->seal(id, end, reason);
  tracked.sealed = true;
  tracked.head = end;
  tracked.gone = reason;
  tracked.sealed_since = now_;
  awake_.insert(id);
  counters_.given_up_bytes += uncommitted_bytes(tracked);
  ++counters_.streams_sealed;
  unlink_path(tracked);
  if (const auto known = by_key_.find(tracked.key); known != by_key_.end() && known->second == id) by_key_.erase(known);
  deleted_.erase(id);
  missing_.erase(id);
  tracked.file.close();
  dirty_.insert(id);
}

// ---- what the publisher tells

void Tailer::on_broken(StreamId stream, const Error&) {
  if (Tracked* tracked = find(stream); tracked != nullptr && !tracked->gone) {
    reincarnate(*tracked, wire::LossReason::kTruncated);
  }
}

void Tailer::on_sent(const wire::StreamInfo& stream) {
  dirty_.insert(stream.stream);
  const Tracked* tracked = find(stream.stream);
  if (tracked == nullptr) return;
  registry_.note(tracked->slot, tracked->id, tracked->file.fingerprint());
  if (!archives_.empty() && archives_.front() == stream.stream && stream.sent >= tracked->file.decompressed_to()) {
    next_archive_ = {};
  }
  if (stream.file.head_length == Fingerprint::kHeadBytes) return;
  publisher_->identify(stream.stream, identity_of(tracked->key, tracked->file.fingerprint()));
}

void Tailer::on_commit(const std::string& consumer, StreamId stream, FileOffset offset) {
  commits_[{consumer, stream}] = offset;
  if (config_.delete_after) removals_.try_emplace(stream);
}

void Tailer::on_consumer(const std::string& durable_name, const Interest& interest) {
  if (auto ok = registry_.save_consumer(durable_name, interest); !ok) {
    log::error("cannot record a consumer", {{"durable", durable_name}, {"error", ok.error()}});
  }
}

}  // namespace fantail
