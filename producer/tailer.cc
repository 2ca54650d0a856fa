#include "producer/tailer.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "producer/tracked.h"

namespace fantail {
namespace {

constexpr Duration kSaveInterval = 1s;
constexpr Duration kSaveAbsencesInterval = 1min;
constexpr Duration kWalkSpacing = 200ms;  // however many directories come and go
constexpr Duration kMissingGrace = 1s;    // a rename shows as two events, possibly of two directories

std::int64_t modification_time(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return 0;
  return std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
}

}  // namespace

Tailer::Tailer(TailerConfig config, Discovery& discovery, Registry& registry, CommitLedger& ledger)
    : config_(config), discovery_(discovery), registry_(registry), ledger_(ledger), open_files_(config.open_files) {
  open_files_.on_full([this] { make_room(); });
}
Tailer::~Tailer() = default;

Tailer::Tracked* Tailer::find(StreamId id) {
  const auto found = tracked_.find(id);
  return found == tracked_.end() ? nullptr : found->second.get();
}

Tailer::Tracked* Tailer::at_path(const std::string& path) {
  const auto found = by_path_.find(path);
  return found == by_path_.end() ? nullptr : find(found->second);
}

// ---- start and turn

Status Tailer::start(StreamPublisher& publisher, MonoTime now) {
  publisher_ = &publisher;
  now_ = now;
  if (!registry_.rebuilding()) return begin();
  start_rebuilding();
  return {};
}

/// Takes up what is known, and finds what is there.
Status Tailer::begin() {
  auto known = registry_.load_streams();
  if (!known) return tl::unexpected(known.error());
  if (auto ok = registry_.load_consumers(ledger_); !ok) return ok;
  const auto absences = registry_.load_absences();
  if (!absences) return tl::unexpected(absences.error());
  for (const auto& [name, away] : *absences) absences_.load(name, away);
  first_start_ = known->empty() && !registry_.started();  // a registry of before there was that row has streams
  std::vector<StreamId> replaced;
  for (StreamRecord& record : *known) {
    // Sealed, and readable only through the descriptor of the run that ended: the file had no name any more.
    const bool held_until_then = record.info.sealed && !record.gone;
    if (held_until_then) {
      record.gone = wire::LossReason::kDeleted;
      record.info.sent = record.info.head;
    }
    Tracked& tracked = track(std::move(record));
    if (tracked.record.info.sealed) {
      tracked.sealed_since = now_;
      if (held_until_then) {
        counters_.given_up_bytes += uncommitted_bytes(tracked);
        dirty_.insert(tracked.record.info.stream);
      }
      continue;
    }
    const auto [at, only] = by_key_.try_emplace(tracked.record.key, tracked.record.info.stream);
    if (!only) replaced.push_back(std::exchange(at->second, tracked.record.info.stream));
    by_path_[tracked.record.current_path] = tracked.record.info.stream;
  }
  // An inode has one file at a time. The older stream had ended, and the end of the program came before that was saved.
  for (const StreamId id : replaced) give_up(*find(id), wire::LossReason::kTruncated);
  scan(now_);
  first_start_ = false;
  // What the walk did not meet under its old name may have been renamed to one that no pattern takes.
  for (const auto& [key, id] : std::map(by_key_)) {
    Tracked* tracked = find(id);
    if (tracked == nullptr || tracked->file.is_open()) continue;
    const auto there = key_of(tracked->file.path());
    if (there && *there == key) {
      refresh(*tracked);
    } else {
      lost_sight(*tracked);
    }
  }
  announce_fresh();
  // Files that could not be recorded yet will say so when they are.
  return fresh_.empty() ? registry_.set_started() : Status{};
}

Tailer::Tracked& Tailer::track(StreamRecord record) {
  auto tracked = std::make_unique<Tracked>(std::move(record));
  Tracked& ref = *tracked;
  ref.active = now_;
  ref.file.count_in(open_files_);
  tracked_[ref.record.info.stream] = std::move(tracked);
  publisher_->add(ref.record.info, ref.record.gone ? nullptr : &ref.file,
                  ref.record.gone.value_or(wire::LossReason::kUnknown));
  return ref;
}

std::size_t Tailer::turn(MonoTime now) {
  now_ = now;
  if (recollection_) return go_on_rebuilding();
  std::size_t work = 0;
  Discovery::Changes changes;
  discovery_.read_events(changes);
  if (now >= next_sweep_) discovery_.check_links(changes);
  work += changes.touched.size();
  // Who arrives may be who left from somewhere else.
  for (const std::string& path : changes.arrived) {
    const auto origin = changes.origins.find(path);
    look_at(path, origin == changes.origins.end() ? std::string() : origin->second);
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
  if (changes.rescan) next_scan_ = std::min(next_scan_, last_scan_ + kWalkSpacing);
  if (now >= next_scan_) scan(now);
  announce_fresh();
  if (!missing_.empty()) resolve_missing(now);
  if (open_files_.too_many()) give_up_beyond_descriptors();
  if (now >= next_sweep_) sweep(now);
  if (now >= next_save_) save(now);
  return work;
}

MonoTime Tailer::due() const {
  if (recollection_) return recollection_->due(now_);
  MonoTime at = std::min({next_scan_, next_sweep_, next_save_});
  for (const auto& [id, since] : missing_) at = std::min(at, since + kMissingGrace);
  return at;
}

void Tailer::scan(MonoTime now) {
  last_scan_ = now;
  next_scan_ = now + config_.rescan;
  ++counters_.walks;
  matched_ = discovery_.scan([this](const std::string& path, const Selection&) { look_at(path); });
  // Files whose names the walk did not come by: names that no pattern takes, and those that are gone without an event.
  std::vector<StreamId> not_met;
  for (const auto& [path, id] : by_path_) {
    if (const Tracked* tracked = find(id); tracked != nullptr && tracked->met_in_walk != counters_.walks) {
      not_met.push_back(id);
    }
  }
  for (const StreamId id : not_met) {
    Tracked* tracked = find(id);
    if (tracked == nullptr || tracked->sealed_since) continue;
    look_for(*tracked);
    if (!missing_.contains(id)) refresh(*tracked);
  }
  if (!tracked_.empty()) return;
  // Oldest first, so that a consumer sees a backlog in the order in which it came about.
  std::sort(fresh_.begin(), fresh_.end(), [](const StreamRecord& a, const StreamRecord& b) {
    return modification_time(a.current_path) < modification_time(b.current_path);
  });
}

// ---- which file is which stream

/// `origin`: the name it had a moment ago, if it was renamed. It may be gone from there before anybody looked.
void Tailer::look_at(const std::string& path, const std::string& origin) {
  const auto key = key_of(path);
  Tracked* here_before = at_path(path);
  if (here_before != nullptr && (!key || here_before->record.key != *key)) lost_sight(*here_before);
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
      return refresh(*tracked);
    }
  }
  const bool waiting = std::any_of(fresh_.begin(), fresh_.end(), [&](const StreamRecord& r) { return r.key == *key; });
  if (waiting) return;
  const Selection* selection = discovery_.selection_of(path);
  const bool by_origin = selection == nullptr && !origin.empty();
  if (by_origin) selection = discovery_.selection_of(origin);
  if (selection != nullptr) mint(path, by_origin ? origin : path, *key, *selection);
}

void Tailer::rename(Tracked& tracked, const std::string& path) {
  log::info("file renamed", {{"stream", tracked.record.info.stream}, {"path", tracked.file.path()}, {"to", path}});
  unlink_path(tracked);
  by_path_[path] = tracked.record.info.stream;
  tracked.file.set_path(path);
  tracked.astray = false;
  dirty_.insert(tracked.record.info.stream);
}

void Tailer::unlink_path(const Tracked& tracked) {
  const auto found = by_path_.find(tracked.file.path());
  if (found != by_path_.end() && found->second == tracked.record.info.stream) by_path_.erase(found);
}

/// Something may have happened to its bytes.
void Tailer::refresh(Tracked& tracked) {
  if (tracked.sealed_since) return;
  const StreamId id = tracked.record.info.stream;
  const wire::StreamInfo* info = publisher_->info(id);
  if (info == nullptr) return;
  // New bytes are read at once, unless others wait before them: then the look itself has to tell whose bytes they are.
  const bool verify = info->sent < info->head;
  const auto look = tracked.file.look(verify);
  if (!look) {
    if (look.error().code == ErrorCode::kReplaced) return reincarnate(tracked, wire::LossReason::kTruncated);
    if (look.error().code == ErrorCode::kNotFound) return lost_sight(tracked);
    if (named_unreadable_.insert(tracked.file.path()).second) {
      log::warn("cannot read a file, will keep trying", {{"path", tracked.file.path()}, {"error", look.error()}});
    }
    return;
  }
  named_unreadable_.erase(tracked.file.path());
  if (verify) tracked.verified_end = {look->size};
  if (look->size > info->head.raw) {
    tracked.active = now_;
    dirty_.insert(id);
    // It was empty when it was found: as in mint(), and before its first byte is sent.
    const Fingerprint& known = tracked.file.fingerprint();
    if (known.cursor.raw == 0 && known.head_length == 0 && tracked.file.learn_head()) save(now_);
    publisher_->advance(id, {look->size});
  }
  tracked.names = look->names;
  if (look->deleted() && !tracked.deleted_since) {
    tracked.deleted_since = now_;
    deleted_.insert(id);
    unlink_path(tracked);
    missing_.erase(id);
    log::info("file deleted, holding it",
              {{"stream", id}, {"path", tracked.file.path()}, {"bytes", uncommitted_bytes(tracked)}});
  }
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
  if (first_start_ && config_.from_end) {
    if (const auto at = file.skip_to_end()) record.info.base = record.info.sent = record.info.head = *at;
  } else {
    (void)file.learn_head();
  }
  record.fingerprint = file.fingerprint();
  record.info.file = identity_of(key, record.fingerprint);
  fresh_.push_back(std::move(record));
}

/// Makes found files into streams: first in the registry, then for the world.
void Tailer::announce_fresh() {
  if (fresh_.empty()) return;
  if (auto ok = registry_.insert(fresh_); !ok) {
    if (const auto n = save_error_log_.occurred(now_)) {
      log::error("cannot record new files, they wait", {{"error", ok.error()}, {"count", *n}});
    }
    return;
  }
  std::vector<StreamId> announced;
  for (StreamRecord& record : std::exchange(fresh_, {})) {
    Tracked& tracked = track(std::move(record));
    const StreamId id = tracked.record.info.stream;
    by_key_[tracked.record.key] = id;
    by_path_[tracked.record.current_path] = id;
    ++counters_.streams_created;
    log::info("file found", {{"stream", id}, {"topic", tracked.record.info.topic}, {"path", tracked.file.path()}});
    announced.push_back(id);
  }
  // Not before all are known: a look may find that another of them is at the path by now.
  for (const StreamId id : announced) {
    if (Tracked* tracked = find(id)) refresh(*tracked);
  }
}

/// Whether it is where it was.
void Tailer::look_for(Tracked& tracked) {
  const auto there = key_of(tracked.file.path());
  if (!there || *there != tracked.record.key) lost_sight(tracked);
}

/// It is not where it was: renamed, moved away or deleted. Harmless if that was seen already.
void Tailer::lost_sight(Tracked& tracked) {
  const StreamId id = tracked.record.info.stream;
  if (tracked.deleted_since || tracked.sealed_since || missing_.contains(id)) return;
  const auto there = find_in_directory(std::filesystem::path(tracked.file.path()).parent_path(), {tracked.record.key});
  if (!there.empty()) {
    rename(tracked, there.begin()->second);
    return refresh(tracked);
  }
  unlink_path(tracked);
  missing_[id] = now_;
  if (tracked.file.is_open()) refresh(tracked);  // tells whether any name is left
}

void Tailer::resolve_missing(MonoTime now) {
  for (const auto& [id, since] : std::map(missing_)) {
    Tracked* tracked = find(id);
    if (tracked == nullptr) {
      missing_.erase(id);
      continue;
    }
    if (now - since < kMissingGrace) continue;
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
    } else {
      give_up(*tracked, wire::LossReason::kDeleted);
    }
  }
}

/// The file holds other bytes than those of its stream: that stream has ended, a new one begins.
void Tailer::reincarnate(Tracked& tracked, wire::LossReason reason) {
  const std::string path = tracked.file.path();
  log::info("file was truncated or rewritten",
            {{"stream", tracked.record.info.stream}, {"path", path}, {"offset", tracked.file.fingerprint().cursor}});
  give_up(tracked, reason);
  look_at(path);
  announce_fresh();
  // It went by a name that no pattern takes; another of its names may be one that is taken.
  if (discovery_.selection_of(path) == nullptr) next_scan_ = now_;
}

/// No byte of it can be read any more.
void Tailer::give_up(Tracked& tracked, wire::LossReason reason) {
  const StreamId id = tracked.record.info.stream;
  const wire::StreamInfo* info = publisher_->info(id);
  // Bytes that were seen to be there but not read in time are part of the stream: they are a loss, not silence. After a
  // truncation the head may be that of the new content already.
  FileOffset end = std::max(tracked.file.fingerprint().cursor, tracked.verified_end);
  if (reason != wire::LossReason::kTruncated && info != nullptr) end = std::max(end, info->head);
  publisher_->seal(id, end, reason);
  tracked.record.info.sealed = true;
  tracked.record.info.head = end;
  tracked.record.gone = reason;
  tracked.sealed_since = now_;
  counters_.given_up_bytes += uncommitted_bytes(tracked);
  ++counters_.streams_sealed;
  unlink_path(tracked);
  if (const auto known = by_key_.find(tracked.record.key); known != by_key_.end() && known->second == id)
    by_key_.erase(known);
  deleted_.erase(id);
  missing_.erase(id);
  tracked.file.close();
  dirty_.insert(id);
}

// ---- saving

StreamRecord Tailer::record_of(const Tracked& tracked) const {
  StreamRecord record = tracked.record;
  record.current_path = tracked.file.path();
  record.fingerprint = tracked.file.fingerprint();
  if (const wire::StreamInfo* info = publisher_->info(record.info.stream)) {
    record.info.head = info->head;
  }
  return record;
}

void Tailer::save(MonoTime now) {
  next_save_ = now + kSaveInterval;
  std::vector<StreamRecord> changed;
  for (const StreamId id : dirty_) {
    if (const Tracked* tracked = find(id)) changed.push_back(record_of(*tracked));
  }
  if (auto ok = registry_.save(changed, commits_); !ok) {
    if (const auto n = save_error_log_.occurred(now)) {
      log::error("cannot save positions, will keep trying", {{"error", ok.error()}, {"count", *n}});
    }
    return;
  }
  dirty_.clear();
  commits_.clear();
  if (now < next_absences_) return;
  if (auto ok = registry_.save_absences(absences_.all(now), ledger_); !ok) {
    if (const auto n = save_error_log_.occurred(now)) {
      log::error("cannot save for how long consumers are away", {{"error", ok.error()}, {"count", *n}});
    }
    return;
  }
  next_absences_ = now + kSaveAbsencesInterval;
}

void Tailer::save_now() {
  next_absences_ = {};
  save(now_);
}

// ---- what the publisher tells

void Tailer::on_broken(StreamId stream, const Error&) {
  if (Tracked* tracked = find(stream); tracked != nullptr && !tracked->record.gone) {
    reincarnate(*tracked, wire::LossReason::kTruncated);
  }
}

void Tailer::on_sent(const wire::StreamInfo& stream) {
  dirty_.insert(stream.stream);
  if (stream.file.head_length == Fingerprint::kHeadBytes) return;
  if (const Tracked* tracked = find(stream.stream)) {
    publisher_->identify(stream.stream, identity_of(tracked->record.key, tracked->file.fingerprint()));
  }
}

void Tailer::on_commit(const std::string& consumer, StreamId stream, FileOffset offset) {
  commits_[{consumer, stream}] = offset;
}

void Tailer::on_consumer(const std::string& durable_name, const Interest& interest) {
  if (auto ok = registry_.save_consumer(durable_name, interest); !ok) {
    log::error("cannot record a consumer", {{"durable", durable_name}, {"error", ok.error()}});
  }
}

}  // namespace fantail
