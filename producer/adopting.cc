// The part of Tailer that finds the file in which a stream goes on whose own was truncated, moved or is gone: the same
// one elsewhere, a copy, an archive. See docs/decisions/0009-adopting-copies.md.
#include <algorithm>
#include <array>
#include <filesystem>

#include "producer/adoption.h"
#include "producer/file_system.h"
#include "producer/tracked.h"

namespace fantail {

/// What is in the file, if it is an archive; null if it is none, or archives are sent as they are.
ArchiveContent* Tailer::unpacked(FileContent& file, const std::string& path, FileKey key) {
  return config_.decompress ? unpacking_.content_of(file, path, key, now_) : nullptr;
}

/// Streams that have lost their file may go on in an archive that was read through; those whose file may be found yet
/// are seen to in resolve_missing(), and files that wait are compared with it in settle_pending().
std::size_t Tailer::unpack() {
  const Unpacking::Progress progress = unpacking_.go_on(now_);
  for (const StreamId id : progress.of) {
    Tracked* tracked = find(id);
    if (tracked == nullptr || tracked->sealed_since) continue;
    if (tracked->without_file || tracked->deleted_since) {
      find_copy(*tracked, tracked->without_file.value_or(wire::LossReason::kDeleted), false);
    }
  }
  return progress.any ? 1 : 0;
}

/// Whether an archive has taken the place of its file.
bool Tailer::lives_in_archive(const Tracked& tracked) const {
  const KnownCopies::Copy* copy = copies_.find(tracked.key);
  return copy != nullptr && copy->record.stream == tracked.id && tracked.file.archive_mark();
}

/// Looks for the file of a stream in all directories that are watched, whatever its name there, and where rotators move
/// files to.
bool Tailer::find_elsewhere(Tracked& tracked) {
  if (!elsewhere_) {
    // One search for all that are missing.
    std::set<FileKey> keys{tracked.key};
    for (const auto& [id, since] : missing_) {
      if (const Tracked* missing = find(id)) keys.insert(missing->key);
    }
    elsewhere_.emplace();
    for (const std::string& directory : discovery_.directories()) {
      elsewhere_->merge(find_in_directory(directory, keys));
    }
  }
  std::string place;
  if (const auto found = elsewhere_->find(tracked.key); found != elsewhere_->end()) {
    // Another file may have its inode by now.
    TailedFile file(found->second, tracked.key, tracked.file.fingerprint());
    if (const auto mark = tracked.file.archive_mark()) file.read_archive(archive_budget_, mark);
    if (file.look(true)) place = found->second;
  }
  if (place.empty() && rotated_) {
    rotated_->scan([&](const std::string& path, const Selection&) {
      if (place.empty() && key_of(path) == tracked.key) place = path;
    });
  }
  const auto owner = by_key_.find(tracked.key);
  if (place.empty() || owner == by_key_.end() || owner->second != tracked.id) return false;
  rename(tracked, place);
  missing_.erase(tracked.id);
  refresh(tracked);
  return true;
}

/// Looks for a copy of the stream's file, which was truncated or is gone, and goes on in the longest there is.
bool Tailer::find_copy(Tracked& tracked, wire::LossReason reason, bool siblings) {
  const Fingerprint& fingerprint = tracked.file.fingerprint();
  if (fingerprint.head_length == 0 || tracked.sealed) return false;
  std::map<FileKey, std::string> places;
  if (siblings) {
    namespace fs = std::filesystem;
    places.merge(files_in_directory(fs::path(tracked.file.path()).parent_path()));
    places.merge(files_in_directory(fs::path(name_of(tracked)).parent_path()));
    if (rotated_) {
      rotated_->scan([&](const std::string& path, const Selection&) {
        if (const auto key = key_of(path)) places.emplace(*key, path);
      });
    }
  }
  // Where they are now before where they were when they were looked at.
  for (const auto& [key, copy] : copies_.all()) places.emplace(key, copy.record.path);
  for (const auto& [key, pending] : pending_) places.emplace(key, pending.path);
  places.merge(unpacking_.places());
  const std::pair<const FileKey, std::string>* longest = nullptr;
  ArchiveContent* longest_archive = nullptr;
  std::uint64_t longest_size = 0;
  for (const auto& place : places) {
    const auto& [key, path] = place;
    if (key == tracked.key || began_anew(tracked, path)) continue;
    if (const auto other = by_key_.find(key); other != by_key_.end()) {
      // Its inode may have been used again for the copy, while nobody looked or it had just been deleted.
      const Tracked* owner = find(other->second);
      if (owner == nullptr) continue;
      if (owner->seen && !missing_.contains(other->second)) {
        const auto status = status_of(path);
        if (owner->file.is_open() || !status || owner->file.unchanged_since_look(*status)) continue;
      }
      TailedFile theirs(path, key, owner->file.fingerprint());
      if (const auto mark = owner->file.archive_mark()) theirs.read_archive(archive_budget_, mark);
      if (theirs.look(true)) continue;
    }
    if (is_copy_of_another(tracked, key, path)) continue;
    auto file = FileContent::open(path, key);
    if (!file) continue;
    ArchiveContent* archive = nullptr;
    if (!fits(tracked, {path, key, *file}, reason)) {
      archive = unpacked(*file, path, key);
      if (archive == nullptr || !fits(tracked, {path, key, *archive, archive}, reason)) continue;
    }
    const std::uint64_t size = archive != nullptr ? archive->size() : file->size();
    if (size <= longest_size) continue;
    longest = &place;
    longest_size = size;
    longest_archive = archive;
  }
  if (longest == nullptr) return false;
  const auto& [key, path] = *longest;
  if (longest_archive != nullptr) return adopt(tracked, {path, key, *longest_archive, longest_archive}, reason);
  auto file = FileContent::open(path, key);
  return file && adopt(tracked, {path, key, *file}, reason);
}

/// On record as that, and the other stream has its file: that has all of it.
bool Tailer::is_copy_of_another(const Tracked& tracked, FileKey key, const std::string& path) const {
  const KnownCopies::Copy* copy = copies_.find(key);
  if (copy == nullptr || copy->record.stream == tracked.id) return false;
  const auto other = tracked_.find(copy->record.stream);
  const bool there = other != tracked_.end() && !other->second->gone && !missing_.contains(other->first);
  return there && is_copy_still(copy->record, path);
}

/// Whether the stream, whose file is gone, can go on there. An archive that may be the place is read through first.
bool Tailer::fits(const Tracked& tracked, const Place& place, wire::LossReason reason) {
  const Fingerprint& fingerprint = tracked.file.fingerprint();
  Newcomer newcomer(place.content);
  if (newcomer.likeness(fingerprint) != Newcomer::Likeness::kYes) return false;
  const bool kin = is_kin(tracked, place.path);
  if (fingerprint.head_length < Fingerprint::kHeadBytes && !kin) return false;
  if (const std::array end{fingerprint.cursor.raw}; !place.content.tells(end)) {
    if (place.archive != nullptr) unpacking_.awaited_by(place.key, std::array{tracked.id});
    return false;
  }
  if (newcomer.compare(known_stream(fingerprint, KnownStream::State::kGone, kin)) != Verdict::kBacking) return false;
  if (place.archive == nullptr || reason != wire::LossReason::kDeleted || !tracked.file.is_open()) return true;
  // What is open can be read to its end, which an archive need not have that was made before it was written last.
  const auto original = FileContent::borrow(tracked.file.fd());
  return original && original->size() <= place.content.size() && tracked.file.writers() == Writers::kNone;
}

/// The file holds its bytes no more: the stream goes on in a copy, or waits for archives that may be one, or is over.
void Tailer::lose_file(Tracked& tracked, wire::LossReason reason) {
  const StreamId id = tracked.id;
  if (find_copy(tracked, reason, true)) return;
  if (tracked.sealed_since || !unpacking_.is_awaited_by(id)) return give_up(tracked, reason);
  unlink_path(tracked);
  if (const auto known = by_key_.find(tracked.key); known != by_key_.end() && known->second == id) by_key_.erase(known);
  deleted_.erase(id);
  tracked.deleted_since.reset();
  tracked.key = {};
  tracked.file.move_to(tracked.file.path(), {}, nullptr, {});
  tracked.without_file = reason;
  missing_[id] = now_;
  dirty_.insert(id);
}

/// From now on the stream is read from that file.
bool Tailer::adopt(Tracked& tracked, const Place& place, wire::LossReason reason) {
  const auto& [path, key, content, archive] = place;
  const StreamId id = tracked.id;
  const wire::StreamInfo* info = publisher_->info(id);
  const FileOffset cursor = tracked.file.fingerprint().cursor;
  if (archive == nullptr && tracked.file.archive_mark()) return false;  // what was of an archive stays that
  TailedFile file(path, key, tracked.file.fingerprint());
  if (archive != nullptr) file.read_archive(archive_budget_, archive->mark(cursor));
  const auto look = file.look(true);
  if (!look || info == nullptr) return false;
  const std::uint64_t holds = archive != nullptr ? archive->size() : look->size;
  log::info("a copy takes the place of a file",
            {{"stream", id}, {"path", tracked.file.path()}, {"copy", path}, {"bytes", holds}});
  // As in give_up().
  FileOffset seen = std::max(cursor, tracked.verified_end);
  if (reason != wire::LossReason::kTruncated) seen = std::max(seen, info->head);
  const bool head_was_another = info->head.raw > holds;

  unlink_path(tracked);
  if (const auto before = by_key_.find(tracked.key); before != by_key_.end() && before->second == id)
    by_key_.erase(before);
  deleted_.erase(id);
  missing_.erase(id);
  tracked.deleted_since.reset();
  tracked.astray = false;
  tracked.without_file.reset();
  tracked.active = now_;
  if (archive == nullptr) {
    tracked.file.move_to(path, key, nullptr, {});
  } else {
    tracked.file.move_to(path, key, &archive_budget_, archive->mark(cursor));
  }
  (void)tracked.file.open();  // it may be gone soon: what is open can be read
  tracked.key = key;
  const auto [at, unused] = by_key_.try_emplace(key, id);
  Tracked* const other = unused ? nullptr : find(std::exchange(at->second, id));
  pending_.erase(key);
  copies_.erase(key);
  ++counters_.streams_adopted;
  dirty_.insert(id);
  publisher_->identify(id, identity_of(key, tracked.file.fingerprint()));
  if (archive != nullptr) {
    // How the stream ends is told when it was read to there. On record as a copy, too: so it is known for one that
    // took the place of a file, and is not sent after the stream is forgotten.
    tracked.seen_to = seen;
    if (auto record = describe_copy(path, key, id, file.file_bytes()))
      copies_.put(std::move(*record), now_, counters_.walks);
    link_path(tracked);
    refresh(tracked);
  } else if (seen.raw > look->size || head_was_another) {
    // What was appended after the copy was made is in none of them.
    tracked.copied_to = FileOffset{look->size};
    publisher_->seal(id, std::max(seen, *tracked.copied_to), std::nullopt);
    tracked.sealed = true;
    tracked.sealed_since = now_;
    ++counters_.streams_sealed;
  } else {
    link_path(tracked);
    publisher_->advance(id, {look->size});
    refresh(tracked);
  }
  if (other != nullptr) lose_file(*other, wire::LossReason::kDeleted);
  save(now_);
  return true;
}

/// A stream is over and its file is still there: it must not be taken for a new one.
void Tailer::leave_copy(const Tracked& tracked) {
  const std::string& path = tracked.file.path();
  const auto there = key_of(path);
  if (!there || *there != tracked.key || discovery_.selection_of(path) == nullptr) return;
  if (auto record = describe_copy(path, tracked.key, tracked.id, tracked.copied_to->raw)) {
    copies_.put(std::move(*record), now_, counters_.walks);
  }
}

}  // namespace fantail
