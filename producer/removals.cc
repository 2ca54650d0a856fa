// The part of Tailer that removes files which every durable consumer has: --delete-after-commit.
#include <algorithm>
#include <filesystem>

#include "producer/file_removal.h"
#include "producer/tracked.h"

namespace fantail {
namespace {

constexpr Duration kQuiet = 5s;  // where it cannot be known whether somebody has it open for writing

/// Without a pattern's help it is found again after a kill, because it is beside the path of its stream.
std::string name_aside(const std::string& path, StreamId stream) {
  return (std::filesystem::path(path).parent_path() / (".fantail-delete-" + to_string(stream))).string();
}

}  // namespace

/// Whether all of it was sent from its first byte on, and every durable consumer that wants it has it. There must be
/// one. Of streams that have ended only those have a file that went on in an archive.
bool Tailer::removable(const Tracked& tracked) const {
  const bool in_archive = tracked.ended_with_archive() && !tracked.gone;
  if ((tracked.sealed_since && !in_archive) || tracked.deleted_since || tracked.astray) return false;
  if (!tracked.file.all_decompressed()) return false;
  const wire::StreamInfo* info = publisher_->info(tracked.id);
  if (info == nullptr || info->base.raw != 0 || info->head.raw == 0 || info->sent != info->head) return false;
  const auto committed = ledger_.held_for(*info);
  return committed && *committed >= info->head;
}

bool Tailer::removals_pending() const {
  return std::any_of(removals_.begin(), removals_.end(), [&](const auto& entry) {
    const auto tracked = tracked_.find(entry.first);
    return tracked != tracked_.end() && removable(*tracked->second);
  });
}

void Tailer::sweep_removals(MonoTime now) {
  std::vector<StreamId> due;
  bool unsaved = false;
  for (auto it = removals_.begin(); it != removals_.end();) {
    const Tracked* tracked = find(it->first);
    if (tracked == nullptr || !removable(*tracked)) {
      it = removals_.erase(it);
      continue;
    }
    unsaved = unsaved || !it->second;
    if (it->second && now - *it->second >= *config_.delete_after) due.push_back(it->first);
    ++it;
  }
  if (unsaved) {
    save(now);
    if (!commits_.empty()) return;  // it could not be saved
    if (auto ok = registry_.sync(); !ok) {
      if (const auto n = save_error_log_.occurred(now))
        log::error("cannot save commits, files are not deleted", {{"error", ok.error()}, {"count", *n}});
      return;
    }
    for (auto& [id, since] : removals_) since = since.value_or(now);
  }
  for (const StreamId id : due) {
    if (Tracked* tracked = find(id)) remove(*tracked);
  }
}

void Tailer::remove(Tracked& tracked) {
  const StreamId id = tracked.id;
  const std::string path = tracked.file.path();
  const std::string aside = name_aside(path, id);
  removals_.erase(id);  // tried again with the next look at all files
  if (path != aside && discovery_.selection_of(path) == nullptr) return;
  if (tracked.sealed_since) {
    (void)tracked.file.look(true);  // opens it, as refresh() does
  } else {
    refresh(tracked);
  }
  if (!tracked.file.is_open() || !removable(tracked)) return;
  const std::uint64_t length =
      tracked.file.archive_rest() ? tracked.file.file_bytes() : tracked.file.fingerprint().cursor.raw;
  const RemovableFile file{tracked.file.fd(), path, aside, tracked.key, length};
  const auto removed = remove_file(file, kQuiet, [&] { return tracked.file.look(true).has_value(); });
  if (removed) {
    log::info("file deleted after its commit", {{"stream", id}, {"path", path}, {"bytes", file.length}});
    ++counters_.files_deleted;
  } else {
    log::warn("a file is not deleted",
              {{"stream", id}, {"path", removed.error().path}, {"error", removed.error().reason}});
    if (removed.error().path != path) rename(tracked, removed.error().path);
  }
  refresh(tracked);  // what was written to it in the last moment is read, and then it is sealed
  if (tracked.deleted_since && !tracked.sealed_since) sweep_deleted(tracked, now_);  // a later run could only guess
}

}  // namespace fantail
