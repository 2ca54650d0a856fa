// The part of Tailer that recognises copies of files: which new file is one, and in which file a stream goes on whose
// own was truncated or is gone. Newcomer decides, see docs/decisions/0009-adopting-copies.md.
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "producer/adoption.h"
#include "producer/file_system.h"
#include "producer/tracked.h"

namespace fantail {
namespace {

constexpr Duration kPendingGrace = 1s;  // between the end of a copy and the truncation of its original
constexpr Duration kStillCopying = 2s;  // since a growing copy was last compared with its original

KnownStream known(const Fingerprint& fingerprint, KnownStream::State state, bool kin) {
  KnownStream out;
  out.state = state;
  out.fingerprint = fingerprint;
  out.kin = kin;
  return out;
}

bool has_no_name(int fd) {
  struct stat status {};
  return ::fstat(fd, &status) == 0 && status.st_nlink == 0;
}

/// The names of a file in its directory, if it has several: it may be copied beside any of them.
std::vector<std::string> hard_links(const std::string& path, FileKey key) {
  std::vector<std::string> out;
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || status.st_nlink < 2) return out;
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(path).parent_path(), ec)) {
    if (entry.hard_link_count(ec) > 1 && key_of(entry.path().string()) == key) out.push_back(entry.path().string());
  }
  return out;
}

}  // namespace

/// A file that may be a copy.
struct Tailer::Place {
  const std::string& path;
  FileKey key;
  Content& content;
  const ArchiveContent* archive = nullptr;  ///< the content, if it is of one
};

bool Tailer::is_kin(const Tracked& tracked, const std::string& path) const {
  if (are_kin(path, name_of(tracked)) || are_kin(path, tracked.file.path())) return true;
  const std::vector<std::string> links = hard_links(tracked.file.path(), tracked.key);
  return std::any_of(links.begin(), links.end(), [&](const std::string& name) { return are_kin(path, name); });
}

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

/// Whether a file that no stream has is to become one now. Else it is the copy of one, or may turn out to be.
bool Tailer::becomes_stream(const std::string& path, const std::string& name, FileKey key) {
  auto content = FileContent::open(path, key);
  if (!content) return true;  // named when it is looked at
  const std::uint64_t size = content->size();
  if (is_known_copy(path, key, size)) return false;
  StreamId of;
  const auto verdict = size == 0 ? Verdict::kWait : judge(*content, path, key, of);
  if (by_key_.contains(key)) return false;  // a stream goes on in it
  auto pending = pending_.find(key);
  const auto wait = [&](MonoTime since, std::optional<StreamId> away, bool unread) {
    Pending& waiting = pending_[key];
    if (!waiting.fd) waiting.fd = open_files_.keep(content->take_fd());
    waiting = {path, name, since, size, away, std::move(waiting.fd), unread};
    return false;
  };
  if (!verdict) return wait(now_, std::nullopt, true);
  switch (*verdict) {
    case Verdict::kBacking: return false;
    case Verdict::kCopy: {
      auto record = describe_copy(path, key, of, size);
      if (!record) return true;
      if (copies_.find(key) == nullptr) {
        log::info("a copy of what is sent already", {{"path", path}, {"stream", of}});
      }
      copies_.put(std::move(*record), now_, counters_.walks);
      next_save_ = now_;  // once its original is truncated, and was read further, nothing would prove it after a kill
      if (pending != pending_.end()) pending_.erase(pending);
      return false;
    }
    case Verdict::kWait: {
      const Tracked* tracked = find(of);
      const bool away = tracked != nullptr && missing_.contains(of);
      const bool same = pending != pending_.end() && pending->second.size == size && !pending->second.unread;
      if (same && !away && now_ - pending->second.since >= kPendingGrace) break;
      return wait(same ? pending->second.since : now_, away ? std::optional(of) : std::nullopt, false);
    }
    case Verdict::kStranger: break;
  }
  if (pending != pending_.end()) {
    if (pending->second.fd) opened_[key] = std::move(pending->second.fd);
    pending_.erase(pending);
  }
  return true;
}

bool Tailer::is_known_copy(const std::string& path, FileKey key, std::uint64_t size) {
  const KnownCopies::Copy* copy = copies_.find(key);
  if (copy == nullptr) return false;
  const Tracked* original = find(copy->record.stream);
  bool still = is_copy_still(copy->record, path);
  if (!still && now_ - copy->seen < kStillCopying && is_copy_still(copy->record, path, true)) {
    // It was still growing when its original was truncated.
    if (original != nullptr && original->gone && size <= original->file.fingerprint().cursor.raw) {
      if (auto record = describe_copy(path, key, copy->record.stream, size)) {
        copies_.update(std::move(*record));
        still = true;
      }
    }
  }
  if (!still) {
    // With one that goes on it is compared again.
    if (original == nullptr || original->gone) copies_.erase(key);
    return false;
  }
  copies_.met(key, path, counters_.walks);
  // What becomes of the copy while its original goes is known by comparing them while both are there.
  return true;
}

/// What the file is to the streams that are known; of which in `of`. Nothing for an archive of which that cannot be
/// told before it is read through.
std::optional<Verdict> Tailer::judge(FileContent& file, const std::string& path, FileKey key, StreamId& of) {
  auto verdict = judge({path, key, file}, of);  // a stream may be of the bytes that an archive is on disk
  if (verdict == Verdict::kStranger) {
    if (ArchiveContent* archive = unpacked(file, path, key)) verdict = judge({path, key, *archive, archive}, of);
  }
  if (verdict && *verdict != Verdict::kCopy && !by_key_.contains(key)) copies_.erase(key);
  return verdict;
}

std::optional<Verdict> Tailer::judge(const Place& place, StreamId& of) {
  if (!place.content.tells({})) return std::nullopt;
  Newcomer newcomer(place.content);
  // What it was made of may have been found by the same walk.
  const bool like_fresh =
      place.archive != nullptr && std::any_of(fresh_.begin(), fresh_.end(), [&](const auto& record) {
        const auto likeness = newcomer.likeness(record.fingerprint);
        return likeness == Newcomer::Likeness::kYes ||
               (likeness == Newcomer::Likeness::kIfKin && are_kin(place.path, record.current_path));
      });
  if (like_fresh) announce_fresh();
  std::vector<StreamId> candidates;
  std::vector<std::uint64_t> ends;
  for (const auto& [id, tracked] : tracked_) {
    const Fingerprint& known = tracked->file.fingerprint();
    const auto likeness = newcomer.likeness(known);  // looked at first: there may be many streams
    if (likeness == Newcomer::Likeness::kNo || tracked->key == place.key) continue;
    if (likeness == Newcomer::Likeness::kIfKin && !is_kin(*tracked, place.path)) continue;
    candidates.push_back(id);
    ends.push_back(known.cursor.raw);
  }
  if (candidates.empty()) return Verdict::kStranger;
  if (!place.content.tells(ends)) {
    if (place.archive != nullptr) unpacking_.awaited_by(place.key, candidates);
    return std::nullopt;
  }
  Verdict best = Verdict::kStranger;
  for (const StreamId id : candidates) {
    const Verdict verdict = judge_as(id, newcomer, place);
    if (verdict == Verdict::kStranger) continue;
    of = id;
    best = verdict;
    if (verdict != Verdict::kWait) break;
  }
  return best;
}

Verdict Tailer::judge_as(StreamId id, Newcomer& newcomer, const Place& place) {
  using State = KnownStream::State;
  Tracked* tracked = find(id);
  if (tracked == nullptr) return Verdict::kStranger;
  const bool kin = is_kin(*tracked, place.path);
  if (!tracked->gone && !missing_.contains(id)) {
    auto look = tracked->file.look(true);
    if (!look && look.error().code == ErrorCode::kReplaced && !tracked->sealed_since) {
      reincarnate(*tracked, wire::LossReason::kTruncated);  // looks for copies, of which this is one
      if (by_key_.contains(place.key)) return Verdict::kBacking;
    } else if (!look && look.error().code == ErrorCode::kNotFound) {
      lost_sight(*tracked);
      if (!missing_.contains(id)) look = tracked->file.look(true);
    }
    // What is in an archive is not compared with what is in another, only with what is known of it.
    if (look && tracked->file.archive_rest()) {
      return newcomer.compare(known(tracked->file.fingerprint(), State::kOver, kin));
    }
    if (look && look->deleted() && began_anew(*tracked, place.path)) return Verdict::kStranger;
    if (look) {
      auto original = FileContent::borrow(tracked->file.fd());
      if (!original) return Verdict::kStranger;
      // Moved by copying, and written to there already.
      if (look->deleted() && !tracked->sealed_since && place.content.size() > original->size()) {
        const Verdict verdict = newcomer.compare(known(tracked->file.fingerprint(), State::kGone, kin));
        if (verdict != Verdict::kBacking) return verdict;
        return adopt(*tracked, place, wire::LossReason::kDeleted) ? verdict : Verdict::kStranger;
      }
      KnownStream stream = known(tracked->file.fingerprint(), State::kReadable, kin);
      stream.original = &*original;
      const Verdict verdict = newcomer.compare(stream);
      if (verdict == Verdict::kStranger) {
        // Who copies and truncates may have done the latter since the look: what was compared is not what was copied.
        const auto after = FileContent::borrow(tracked->file.fd());
        return after && after->size() < look->size ? judge_as(id, newcomer, place) : verdict;
      }
      if (!look->deleted()) return verdict;
      // Who compresses a file deletes it then: it was this one, however short it is.
      const Verdict copy = place.archive != nullptr && kin ? Verdict::kCopy : verdict;
      const bool whole = place.content.size() >= original->size();
      const bool over = place.archive == nullptr || tracked->file.writers() == Writers::kNone;
      if (!whole || !over || tracked->sealed_since) return copy;
      return adopt(*tracked, place, wire::LossReason::kDeleted) ? Verdict::kBacking : copy;
    }
  }
  tracked = find(id);
  if (tracked == nullptr || began_anew(*tracked, place.path)) return Verdict::kStranger;
  const State state = tracked->gone ? State::kOver : State::kAway;
  return newcomer.compare(known(tracked->file.fingerprint(), state, kin));
}

/// Whether the file that is at the stream's own path was begun there after the stream's file had been deleted: however
/// alike the two are, it is no copy. Not known of what happened while nobody looked. Who saves a longer file by
/// renaming it over the old one has begun that before.
bool Tailer::began_anew(const Tracked& tracked, const std::string& path) const {
  if (!tracked.seen || path != tracked.file.path()) return false;
  const auto begun = birth_of(path);
  const auto deleted = tracked.file.is_open() ? last_change_of(tracked.file.fd()) : std::nullopt;
  return !begun || !deleted || *begun >= *deleted;
}

/// Files that have waited long enough are streams of their own.
void Tailer::settle_pending() {
  std::vector<FileKey> due;
  for (const auto& [key, pending] : pending_) {
    if (pending.unread) {
      if (!unpacking_.under_way(key)) due.push_back(key);
      continue;
    }
    if (now_ - pending.since < kPendingGrace) continue;
    if (!pending.away || !missing_.contains(*pending.away)) due.push_back(key);
  }
  for (const FileKey key : due) {
    const auto found = pending_.find(key);
    if (found == pending_.end()) continue;
    const std::string name = found->second.name;
    std::string path = found->second.path;
    const auto there = key_of(path);
    if (!there || *there != key) {
      const auto moved = find_in_directory(std::filesystem::path(path).parent_path(), {key});
      if (!moved.empty()) {
        path = moved.begin()->second;
      } else if (!found->second.fd) {
        if (found->second.size != 0) {
          log::warn("a file is gone before it could be read: there was no descriptor left to keep it open",
                    {{"path", path}, {"bytes", found->second.size}});
        }
        pending_.erase(found);
        continue;
      }
    }
    if (becomes_stream(path, name, key)) {
      Pending pending;
      if (const auto left = pending_.find(key); left != pending_.end())
        pending = std::move(pending_.extract(left).mapped());
      if (pending.fd) opened_[key] = std::move(pending.fd);
      const auto opened = opened_.find(key);
      const auto content =
          opened == opened_.end() ? fail(ErrorCode::kNotFound, path) : FileContent::borrow(opened->second.get());
      if (content && content->size() == 0 && has_no_name(opened->second.get())) {
        opened_.erase(opened);  // it came and went, and nothing was ever in it
        continue;
      }
      if (const Selection* selection = discovery_.selection_of(name)) mint(path, name, key, *selection);
    }
  }
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
      // Its inode may have been used again for the copy, while nobody looked.
      const Tracked* owner = find(other->second);
      if (owner == nullptr || (owner->seen && !missing_.contains(other->second))) continue;
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
  if (newcomer.compare(known(fingerprint, KnownStream::State::kGone, kin)) != Verdict::kBacking) return false;
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
