// The part of Tailer that looks after files which are not needed any more, or not there any more: how long a deleted
// one is held, when one is closed, when a stream is finished.
#include <algorithm>

#include "producer/tracked.h"

namespace fantail {
namespace {

constexpr Duration kSweepInterval = 1s;
constexpr Duration kDeletedQuiet = 5s;  // where it cannot be known whether somebody has it open for writing
constexpr Duration kCloseIdleAfter = 10s;
constexpr Duration kCloseUnseenAfter = 5min;  // of a file whose changes no event tells
constexpr Duration kForgetUnwantedAfter = 10s;

}  // namespace

std::uint64_t Tailer::uncommitted_bytes(const Tracked& tracked) const {
  const wire::StreamInfo* info = publisher_->info(tracked.record.info.stream);
  if (info == nullptr) return 0;
  const FileOffset done = ledger_.held_for(*info).value_or(info->sent);
  return info->head > done ? info->head - done : 0;
}

/// Looks after one deleted file: seals it when it is read to the end, gives it up when it was held for too long.
void Tailer::sweep_deleted(Tracked& tracked, MonoTime now) {
  const StreamId id = tracked.record.info.stream;
  if (!tracked.sealed_since) refresh(tracked);
  const wire::StreamInfo* info = publisher_->info(id);
  if (info == nullptr || tracked.record.gone) return;
  const bool read_to_end = info->sent == info->head;
  // Sealed when nobody can write to it any more; where that cannot be known, when nobody has for a while.
  const auto over = [&] {
    if (!tracked.file.is_open()) return true;
    switch (tracked.file.writers()) {
      case TailedFile::Writers::kNone: return true;
      case TailedFile::Writers::kSome: return false;
      case TailedFile::Writers::kUnknown: break;
    }
    return now - std::max(tracked.active, *tracked.deleted_since) >= kDeletedQuiet;
  };
  if (read_to_end && !tracked.sealed_since && over()) {
    publisher_->seal(id, info->head, std::nullopt);
    tracked.record.info.sealed = true;
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
                 {{"stream", tracked->record.info.stream}, {"path", tracked->file.path()}, {"bytes", bytes}});
      give_up(*tracked, wire::LossReason::kHoldExceeded);
      held -= bytes;
    }
  }

  std::vector<StreamId> finished;
  std::vector<StreamId> unseen;  ///< changes of them are told by nobody
  for (auto& [id, tracked] : tracked_) {
    const wire::StreamInfo* info = publisher_->info(id);
    if (info == nullptr) continue;
    const auto committed = ledger_.held_for(*info);
    if (tracked->sealed_since) {
      const bool done = committed ? *committed >= info->head
                                  : info->sent >= info->head && now - *tracked->sealed_since >= kForgetUnwantedAfter;
      if (done) finished.push_back(id);
      continue;
    }
    if (!tracked->file.is_open() || tracked->deleted_since) continue;
    // Events come under the name that the writer opened: of a file that has, or had, another one they may be somewhere
    // else.
    const bool seen = !tracked->astray && tracked->names == 1 && tracked->file.path() == tracked->record.info.path &&
                      discovery_.sees(tracked->file.path());
    if (!seen) unseen.push_back(id);
    const bool idle = now - tracked->active >= kCloseIdleAfter && info->sent == info->head;
    if (!idle || (committed && *committed < info->head)) continue;
    if (!seen) {
      // Once closed it is looked at by walks alone, and only if its name still leads to it.
      const auto there = key_of(tracked->file.path());
      const bool findable = there && *there == tracked->record.key;
      if (!findable || now - tracked->active < kCloseUnseenAfter) continue;
    }
    tracked->file.close();
  }
  for (const StreamId id : unseen) {
    if (Tracked* tracked = find(id)) refresh(*tracked);
  }
  if (auto ok = registry_.remove_streams(finished); !ok) {
    if (const auto n = save_error_log_.occurred(now))
      log::error("cannot forget finished streams", {{"error", ok.error()}, {"count", *n}});
    return;
  }
  for (const StreamId id : finished) {
    Tracked& tracked = *tracked_.at(id);
    log::debug("stream finished", {{"stream", id}, {"path", tracked.record.info.path}});
    drop(tracked);
  }
}

/// The registry does not have it any more.
void Tailer::drop(Tracked& tracked) {
  const StreamId id = tracked.record.info.stream;
  unlink_path(tracked);
  if (const auto known = by_key_.find(tracked.record.key); known != by_key_.end() && known->second == id)
    by_key_.erase(known);
  deleted_.erase(id);
  missing_.erase(id);
  dirty_.erase(id);
  std::erase_if(commits_, [&](const auto& entry) { return entry.first.second == id; });
  publisher_->remove(id);
  tracked_.erase(id);
}

// ---- for a program that ends when everything is done

bool Tailer::everything_sent() const {
  return !recollection_ && fresh_.empty() && std::all_of(tracked_.begin(), tracked_.end(), [&](const auto& entry) {
    const wire::StreamInfo* info = publisher_->info(entry.first);
    return info != nullptr && info->sent == info->head;
  });
}

void Tailer::seal_for_now() {
  for (const auto& [id, tracked] : tracked_) {
    const wire::StreamInfo* info = publisher_->info(id);
    if (info != nullptr && !info->sealed && info->sent == info->head) publisher_->seal(id, info->head, std::nullopt);
  }
}

bool Tailer::everything_committed() const {
  if (recollection_ || !fresh_.empty()) return false;
  if (!tracked_.empty() && !ledger_.anybody_was_here()) return false;  // empty files are to be known somewhere, too
  return std::all_of(tracked_.begin(), tracked_.end(), [&](const auto& entry) {
    const wire::StreamInfo* info = publisher_->info(entry.first);
    if (info == nullptr) return false;
    if (info->head == info->base) return true;  // nothing to commit
    const auto committed = ledger_.delivered_to(*info);
    return committed && *committed >= info->head;
  });
}

}  // namespace fantail
