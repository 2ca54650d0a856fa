// The part of Tailer that looks after files which are not needed any more, or not there any more: how long a deleted
// one is held, when one is closed, when a stream is finished.
#include <algorithm>

#include "producer/tracked.h"

namespace fantail {
namespace {

constexpr Duration kSweepInterval = 1s;
constexpr std::size_t kAwakePerSweep = 4096;
constexpr Duration kDeletedQuiet = 5s;     // where it cannot be known whether somebody has it open for writing
constexpr Duration kWakeUpInterval = 30s;  // for files that a fetch has opened
constexpr Duration kCloseIdleAfter = 10s;
constexpr Duration kCloseUnseenAfter = 5min;  // of a file whose changes no event tells
constexpr Duration kForgetUnwantedAfter = 10s;

}  // namespace

std::uint64_t Tailer::uncommitted_bytes(const Tracked& tracked) const {
  const wire::StreamInfo* info = publisher_->info(tracked.id);
  if (info == nullptr) return 0;
  const FileOffset done = ledger_.held_for(*info).value_or(info->sent);
  return info->head > done ? info->head - done : 0;
}

/// Looks after one deleted file: seals it when it is read to the end, gives it up when it was held for too long.
void Tailer::sweep_deleted(Tracked& tracked, MonoTime now) {
  const StreamId id = tracked.id;
  if (!tracked.sealed_since) refresh(tracked);
  const wire::StreamInfo* info = publisher_->info(id);
  if (info == nullptr || tracked.gone) return;
  const bool read_to_end = info->sent == info->head && tracked.file.all_decompressed();
  // Sealed when nobody can write to it any more; where that cannot be known, when nobody has for a while.
  const auto over = [&] {
    if (!tracked.file.is_open()) return true;
    switch (tracked.file.writers()) {
      case Writers::kNone: return true;
      case Writers::kSome: return false;
      case Writers::kUnknown: break;
    }
    return now - std::max(tracked.active, *tracked.deleted_since) >= kDeletedQuiet;
  };
  if (read_to_end && !tracked.sealed_since && !unpacking_.is_awaited_by(id) && over()) {
    publisher_->seal(id, info->head, std::nullopt);
    tracked.sealed = true;
    tracked.sealed_since = now;
    ++counters_.streams_sealed;
    dirty_.insert(id);
  }
  if (now - *tracked.deleted_since >= config_.hold_time && uncommitted_bytes(tracked) > 0) {
    log::error("hold time exceeded, giving up a deleted file",
               {{"stream", id}, {"path", tracked.file.path()}, {"bytes", uncommitted_bytes(tracked)}});
    give_up(tracked, wire::LossReason::kHoldExceeded);
  }
}

void Tailer::sweep(MonoTime now) {
  next_sweep_ = now + kSweepInterval;
  forget_absent(now);
  std::uint64_t held = 0;
  std::vector<Tracked*> by_age;
  for (const StreamId id : std::set(deleted_)) {
    if (Tracked* tracked = find(id)) {
      sweep_deleted(*tracked, now);
      if (!deleted_.contains(id)) continue;
      held += uncommitted_bytes(*tracked);
      by_age.push_back(tracked);
    }
  }
  if (config_.hold_bytes > 0 && held > config_.hold_bytes) {
    std::sort(by_age.begin(), by_age.end(), [](auto* a, auto* b) { return a->deleted_since < b->deleted_since; });
    for (Tracked* tracked : by_age) {
      if (held <= config_.hold_bytes) break;
      const std::uint64_t bytes = uncommitted_bytes(*tracked);
      if (bytes == 0) continue;
      log::error("hold limit exceeded, giving up the oldest deleted file",
                 {{"stream", tracked->id}, {"path", tracked->file.path()}, {"bytes", bytes}});
      give_up(*tracked, wire::LossReason::kHoldExceeded);
      held -= bytes;
    }
  }

  for (const StreamId id : std::set(doubtful_)) {
    if (Tracked* tracked = find(id)) judge_archive(*tracked);
  }

  if (now >= next_wake_up_) {
    next_wake_up_ = now + kWakeUpInterval;
    for (const auto& [id, tracked] : tracked_) {
      if (tracked->sealed_since || tracked->file.is_open()) awake_.insert(id);
      if (config_.delete_after && removable(*tracked)) removals_.try_emplace(id);
    }
  }
  std::vector<StreamId> finished;
  std::vector<StreamId> asleep;
  std::vector<StreamId> changed;  ///< damaged archives whose file is another by now
  std::vector<StreamId> copied;   ///< all that there is of them is safe
  std::vector<StreamId> unseen;   ///< changes of them are told by nobody
  // Of many some at a time.
  auto next = awake_.size() <= kAwakePerSweep ? awake_.begin() : awake_.upper_bound(last_awake_);
  if (next == awake_.end()) next = awake_.begin();
  for (std::size_t n = 0; n < kAwakePerSweep && next != awake_.end(); ++n) {
    const StreamId id = last_awake_ = *next++;
    Tracked* tracked = find(id);
    const wire::StreamInfo* info = tracked == nullptr ? nullptr : publisher_->info(id);
    if (info == nullptr || (!tracked->sealed_since && !tracked->file.is_open())) {
      asleep.push_back(id);
      continue;
    }
    const auto committed = ledger_.held_for(*info);
    const bool done = committed ? *committed >= info->head
                                : info->sent >= info->head && tracked->sealed_since &&
                                      now - *tracked->sealed_since >= kForgetUnwantedAfter;
    if (tracked->ended_with_archive()) {
      // As long as its file is there it must not be taken for a new one, and who comes late can read it.
      const Archived file = archive_file(*tracked);
      if (file == Archived::kChanged) changed.push_back(id);
      if (file == Archived::kSame && done && !tracked->gone && now - tracked->active >= kCloseIdleAfter) {
        tracked->file.close();
        asleep.push_back(id);
      }
      const bool lacks_the_end = tracked->copied_to && !tracked->gone;
      if (file == Archived::kChanged || (file == Archived::kSame && !lacks_the_end)) continue;
    }
    if (tracked->sealed_since) {
      if (done && !unpacking_.is_awaited_by(id)) {
        finished.push_back(id);
      } else if (tracked->copied_to && !tracked->gone) {
        const FileOffset safe = committed.value_or(info->sent);
        if (safe >= *tracked->copied_to && now - *tracked->sealed_since >= kSweepInterval) copied.push_back(id);
      }
      continue;
    }
    if (tracked->deleted_since) continue;
    // Events come under the name that the writer opened: of a file that has, or had, another one they may be somewhere
    // else.
    const bool seen = !tracked->astray && tracked->names == 1 && tracked->file.path() == info->path &&
                      discovery_.sees(tracked->file.path());
    if (!seen) unseen.push_back(id);
    const Duration idle_for = waiting_to_open_.empty() ? kCloseIdleAfter : Duration::zero();
    const bool idle = now - tracked->active >= idle_for && info->sent == info->head && tracked->file.all_decompressed();
    if (!idle || (committed && *committed < info->head)) continue;
    if (!seen) {
      // Once closed it is looked at by walks alone, and only if its name still leads to it.
      const auto there = key_of(tracked->file.path());
      const bool findable = there && *there == tracked->key;
      if (!findable || now - tracked->active < kCloseUnseenAfter) continue;
    }
    tracked->file.rest();
    asleep.push_back(id);
  }
  unseen.insert(unseen.end(), waiting_to_open_.begin(), waiting_to_open_.end());
  waiting_to_open_.clear();
  for (const StreamId id : asleep) awake_.erase(id);
  for (const StreamId id : unseen) {
    if (Tracked* tracked = find(id)) refresh(*tracked);
  }
  for (const StreamId id : changed) {
    if (Tracked* tracked = find(id)) reincarnate(*tracked, wire::LossReason::kTruncated);
  }
  for (const StreamId id : copied) {
    Tracked& tracked = *tracked_.at(id);
    log::warn("bytes that were appended between copying and truncating a file are lost",
              {{"stream", id}, {"path", name_of(tracked)}, {"bytes", publisher_->info(id)->head - *tracked.copied_to}});
    give_up(tracked, wire::LossReason::kTruncated);
  }
  for (const StreamId id : finished) {
    if (!tracked_.at(id)->gone) leave_copy(*tracked_.at(id));
  }
  if (!finished.empty() && copies_.unsaved() && !copies_.save(registry_)) return;  // told by the next save()
  if (config_.delete_after) sweep_removals(now);
  if (auto ok = registry_.remove_streams(finished); !ok) {
    if (const auto n = save_error_log_.occurred(now))
      log::error("cannot forget finished streams", {{"error", ok.error()}, {"count", *n}});
    return;
  }
  for (const StreamId id : finished) {
    Tracked& tracked = *tracked_.at(id);
    log::debug("stream finished", {{"stream", id}, {"path", name_of(tracked)}});
    drop(tracked);
  }
}

/// The registry does not have it any more.
void Tailer::drop(Tracked& tracked) {
  const StreamId id = tracked.id;
  unlink_path(tracked);
  if (const auto known = by_key_.find(tracked.key); known != by_key_.end() && known->second == id) by_key_.erase(known);
  deleted_.erase(id);
  missing_.erase(id);
  dirty_.erase(id);
  awake_.erase(id);
  std::erase_if(commits_, [&](const auto& entry) { return entry.first.second == id; });
  registry_.release(tracked.slot);
  publisher_->remove(id);
  tracked_.erase(id);
}

// ---- for a program that ends when everything is done

/// Before what is known of them is told.
bool Tailer::files_wait() const {
  return recollection_ || start_ || !fresh_.empty() || !pending_.empty() || unpacking_.under_way();
}

bool Tailer::everything_sent() {
  return !files_wait() && all_sent_.ask(tracked_, [&](const auto& entry) {
    const wire::StreamInfo* info = publisher_->info(entry.first);
    const bool read = entry.second->sealed_since || entry.second->file.all_decompressed();
    return info != nullptr && info->sent == info->head && read;
  });
}

void Tailer::seal_for_now() {
  for (const auto& [id, tracked] : tracked_) {
    const wire::StreamInfo* info = publisher_->info(id);
    if (info != nullptr && !info->sealed && info->sent == info->head) publisher_->seal(id, info->head, std::nullopt);
  }
}

bool Tailer::everything_committed() {
  if (files_wait()) return false;
  if (!tracked_.empty() && !ledger_.anybody_was_here()) return false;  // empty files are to be known somewhere, too
  return all_committed_.ask(tracked_, [&](const auto& entry) {
    const wire::StreamInfo* info = publisher_->info(entry.first);
    if (info == nullptr) return false;
    if (info->head == info->base) return true;  // nothing to commit
    const auto committed = ledger_.delivered_to(*info);
    return committed && *committed >= info->head;
  });
}

}  // namespace fantail
