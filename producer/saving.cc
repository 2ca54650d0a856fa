// The part of Tailer that keeps positions and commits: in memory until they are saved together.
#include <algorithm>

#include "producer/tracked.h"

namespace fantail {
namespace {

constexpr Duration kSaveInterval = 1s;
constexpr Duration kSaveAbsencesInterval = 1min;

}  // namespace

StreamRecord Tailer::record_of(const Tracked& tracked) const {
  StreamRecord record;
  record.info.stream = tracked.id;
  record.info.sealed = tracked.sealed;
  record.info.head = tracked.head;
  record.key = tracked.key;
  record.slot = tracked.slot;
  record.gone = tracked.gone;
  record.archive = tracked.archive;
  record.current_path = tracked.file.path();
  record.fingerprint = tracked.file.fingerprint();
  if (!record.ended_with_archive()) record.archive = tracked.file.archive_mark();
  if (const wire::StreamInfo* info = publisher_->info(record.info.stream)) {
    record.info.head = info->head;
    // What was seen and not read yet may be of what the file holds next: a later run would take it for a loss of this.
    const bool archive = tracked.file.archive_rest().has_value();
    if (!tracked.sealed && !archive) {
      record.info.head = std::min(info->head, std::max(record.fingerprint.cursor, tracked.verified_end));
    }
  }
  // What was told may have been the length of what the file was rewritten with.
  if (tracked.seen_to && !record.info.sealed) record.info.head = std::max(*tracked.seen_to, record.fingerprint.cursor);
  return record;
}

void Tailer::save(MonoTime now) {
  next_save_ = now + kSaveInterval;
  std::vector<StreamRecord> changed;
  for (const StreamId id : dirty_) {
    if (const Tracked* tracked = find(id)) changed.push_back(record_of(*tracked));
  }
  auto ok = registry_.save(changed, commits_);
  if (ok) ok = copies_.save(registry_);
  if (!ok) {
    if (const auto n = save_error_log_.occurred(now)) {
      log::error("cannot save positions, will keep trying", {{"error", ok.error()}, {"count", *n}});
    }
    return;
  }
  dirty_.clear();
  commits_.clear();
  if (now < next_absences_) return;
  if (auto saved = registry_.save_absences(absences_.all(now), ledger_); !saved) {
    if (const auto n = save_error_log_.occurred(now)) {
      log::error("cannot save for how long consumers are away", {{"error", saved.error()}, {"count", *n}});
    }
    return;
  }
  next_absences_ = now + kSaveAbsencesInterval;
}

void Tailer::save_now() {
  next_absences_ = {};
  save(now_);
}

}  // namespace fantail
