// The part of Tailer that decides what a new file is: a stream of its own, the copy of one that is known, or what has
// to wait until that is clear. Newcomer compares, see docs/decisions/0009-adopting-copies.md.
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "producer/adoption.h"
#include "producer/file_system.h"
#include "producer/tracked.h"

namespace fantail {
namespace {

constexpr Duration kPendingGrace = 1s;  // between the end of a copy and the truncation of its original
constexpr Duration kStillCopying = 2s;  // since a growing copy was last compared with its original

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
      return newcomer.compare(known_stream(tracked->file.fingerprint(), State::kOver, kin));
    }
    if (look && look->deleted() && began_anew(*tracked, place.path)) return Verdict::kStranger;
    if (look) {
      auto original = FileContent::borrow(tracked->file.fd());
      if (!original) return Verdict::kStranger;
      // Moved by copying, and written to there already.
      if (look->deleted() && !tracked->sealed_since && place.content.size() > original->size()) {
        const Verdict verdict = newcomer.compare(known_stream(tracked->file.fingerprint(), State::kGone, kin));
        if (verdict != Verdict::kBacking) return verdict;
        return adopt(*tracked, place, wire::LossReason::kDeleted) ? verdict : Verdict::kStranger;
      }
      KnownStream stream = known_stream(tracked->file.fingerprint(), State::kReadable, kin);
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
  return newcomer.compare(known_stream(tracked->file.fingerprint(), state, kin));
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

bool Tailer::is_kin(const Tracked& tracked, const std::string& path) const {
  if (are_kin(path, name_of(tracked)) || are_kin(path, tracked.file.path())) return true;
  const std::vector<std::string> links = hard_links(tracked.file.path(), tracked.key);
  return std::any_of(links.begin(), links.end(), [&](const std::string& name) { return are_kin(path, name); });
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

}  // namespace fantail
