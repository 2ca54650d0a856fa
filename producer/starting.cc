// The part of Tailer that takes up its work: what is known of a former run, and what files are there. Those are looked
// at some at a time, so that the first are sent, and consumers served, while the others wait.
#include <malloc.h>

#include <algorithm>
#include <filesystem>

#include "producer/tracked.h"

namespace fantail {
namespace {

constexpr Duration kFirstLooks = 1s;     // at files that were there, before anybody is served
constexpr Duration kLooksPerTurn = 5ms;  // at the others
constexpr std::size_t kLooksBetweenClocks = 16;
constexpr std::size_t kFreshAtATime = 4096;  // recording them waits for the disk

}  // namespace

/// Takes up what is known, and finds what is there.
Status Tailer::begin() {
  if (auto ok = registry_.load_consumers(ledger_); !ok) return ok;
  if (auto ok = copies_.load(registry_, now_, counters_.walks); !ok) return ok;
  std::vector<StreamId> replaced;
  if (auto ok = registry_.each_stream([&](StreamRecord&& record) { take_up(std::move(record), replaced); }); !ok) {
    return ok;
  }
  const auto absences = registry_.load_absences();
  if (!absences) return tl::unexpected(absences.error());
  for (const auto& [name, away] : *absences) absences_.load(name, away);
  start_.emplace();
  // A registry of before that was recorded has streams.
  start_->first = !registry_.started() && (tracked_.empty() || registry_.first_start_under_way());
  // An inode has one file at a time. The older stream had ended, or gone on in a copy, and the end of the program came
  // before that was saved.
  for (const StreamId id : replaced) {
    if (Tracked* tracked = find(id)) lose_file(*tracked, wire::LossReason::kTruncated);
  }
  find_files();
  return go_on_starting();
}

/// Of the run before. `replaced`: those whose inode another stream has by now.
void Tailer::take_up(StreamRecord record, std::vector<StreamId>& replaced) {
  // Sealed and its file is there: a copy that lacks the stream's end, see adopt(). Else it was readable only through
  // the descriptor of the run that ended: the file had no name any more.
  std::optional<FileOffset> copied_to;
  if (record.info.sealed && !record.gone) {
    TailedFile copy(record.current_path, record.key, record.fingerprint);
    const auto look = copy.look(true);
    if (look && look->size <= record.info.head.raw) copied_to = FileOffset{look->size};
  }
  if (record.ended_with_archive() && key_of(record.current_path) != record.key) {
    const auto moved = find_in_directory(std::filesystem::path(record.current_path).parent_path(), {record.key});
    if (!moved.empty()) record.current_path = moved.begin()->second;
  }
  const bool in_archive = record.ended_with_archive() && key_of(record.current_path) == record.key;
  if (in_archive && !record.gone && record.info.head > record.archive->offset) copied_to = record.archive->offset;
  const bool held_until_then = record.info.sealed && !record.gone && !copied_to && !in_archive;
  if (held_until_then) {
    record.gone = wire::LossReason::kDeleted;
    record.info.sent = record.info.head;
  }
  Tracked& tracked = track(std::move(record));
  if (lives_in_archive(tracked)) tracked.seen_to = tracked.head;
  if (tracked.sealed) {
    tracked.sealed_since = now_;
    // Its file is not to be taken for a new one.
    if ((tracked.archive_damaged() || in_archive) && by_key_.try_emplace(tracked.key, tracked.id).second) {
      link_path(tracked);
    }
    if (copied_to && tracked.file.open()) {
      tracked.copied_to = copied_to;
      by_key_[tracked.key] = tracked.id;
    }
    if (held_until_then) {
      counters_.given_up_bytes += uncommitted_bytes(tracked);
      dirty_.insert(tracked.id);
    }
    return;
  }
  const auto [at, only] = by_key_.try_emplace(tracked.key, tracked.id);
  if (!only) replaced.push_back(std::exchange(at->second, tracked.id));
  link_path(tracked);
}

/// Walks everything and puts in order what is there: first the files that have something to send.
void Tailer::find_files() {
  last_scan_ = now_;
  ++counters_.walks;
  ignored_ = 0;
  const MonoTime began = mono_now();
  std::vector<FoundFile>& found = start_->found;
  matched_ = discovery_.scan([&](const std::string& path, const Selection&) {
    if (auto status = status_of(path)) found.push_back({path, *status});
  });
  plan_next_walk(now_, mono_now() - began);
  arrange(found, config_.order);
  std::stable_partition(found.begin(), found.end(), [this](const FoundFile& file) { return !is_quiet(file.status); });
}

/// As far as its size tells.
bool Tailer::is_quiet(const FileStatus& file) const {
  const auto known = by_key_.find(file.key);
  const auto tracked = known == by_key_.end() ? tracked_.end() : tracked_.find(known->second);
  return tracked != tracked_.end() && file.size == tracked->second->file.fingerprint().cursor.raw;
}

/// Looks at some of the files that were there; at all of them if any begin at their end: what is written while they
/// wait is to be sent.
Status Tailer::go_on_starting() {
  const MonoTime began = mono_now();
  const Duration budget = start_->next == 0 ? kFirstLooks : kLooksPerTurn;
  first_start_ = start_->first;
  const std::vector<FoundFile>& found = start_->found;
  const bool divisible = !first_start_ || !discovery_.from_end_anywhere();
  const std::size_t end = divisible ? std::min(found.size(), start_->next + kFreshAtATime) : found.size();
  while (start_->next < end) {
    look_at(found[start_->next++].path);
    if (divisible && start_->next % kLooksBetweenClocks == 0 && mono_now() - began >= budget) break;
  }
  first_start_ = false;
  const bool done = start_->next == found.size();
  if (done || fresh_.size() >= kFreshAtATime) announce_fresh();
  return done ? end_start() : Status{};
}

Status Tailer::end_start() {
  start_.reset();
  ::malloc_trim(0);  // of many files the list was large
  if (ignored_ > 0) {
    log::info("old files are left alone until they are written to", {{"files", ignored_}});
  }
  look_for_those_not_met();
  // What the walk did not meet under its old name may have been renamed to one that no pattern takes.
  for (const auto& [key, id] : std::unordered_map(by_key_)) {
    Tracked* tracked = find(id);
    if (tracked == nullptr || tracked->file.is_open() || tracked->met_in_walk == counters_.walks) continue;
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

}  // namespace fantail
