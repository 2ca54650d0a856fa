// The part of Tailer that reads archives on: whose turn it is, when one is complete, and what becomes of one that
// cannot be read to its end.
#include <algorithm>
#include <filesystem>

#include "producer/tracked.h"

namespace fantail {
namespace {

constexpr std::size_t kLooksPerTurn = 64;  // at archives that nobody wants now
constexpr Duration kUnwantedRetry = 50ms;
constexpr Duration kPatience = 1s;  // with one whose bytes are not taken while others wait

}  // namespace

/// Whether there is something to decompress in it.
void Tailer::look_at_archive(const Tracked& tracked) {
  const StreamId id = tracked.id;
  const auto rest = tracked.file.archive_rest();
  if (!rest || tracked.sealed_since) return;
  // A stream that has come there from a file ends with it: nobody goes on with that.
  const bool may_end = *rest == Archive::Rest::kIncomplete || *rest == Archive::Rest::kDamaged;
  if (may_end || lives_in_archive(tracked)) {
    doubtful_.insert(id);
  } else {
    doubtful_.erase(id);
  }
  if (*rest != Archive::Rest::kMore || std::find(archives_.begin(), archives_.end(), id) != archives_.end()) return;
  archives_.push_back(id);
  next_archive_ = now_;
}

/// One archive after the other, each a piece ahead of what was sent of it. So there is always one piece in memory, and
/// what nobody wants is not decompressed.
std::size_t Tailer::decompress(MonoTime now) {
  if (archives_.empty() || now < next_archive_) return 0;
  const auto next_one = [&] {
    archives_.push_back(archives_.front());
    archives_.pop_front();
    archive_waits_since_.reset();
  };
  for (std::size_t looks = std::min(kLooksPerTurn, archives_.size()); looks > 0; --looks) {
    const StreamId id = archives_.front();
    Tracked* tracked = find(id);
    const wire::StreamInfo* info = publisher_->info(id);
    if (tracked == nullptr || info == nullptr || tracked->sealed_since ||
        tracked->file.archive_rest() != Archive::Rest::kMore) {
      archives_.pop_front();
      archive_waits_since_.reset();
      continue;
    }
    if (!publisher_->wanted(id)) {
      next_one();
      continue;
    }
    // Of a stream that goes on in an archive more is known to be there than was decompressed so far.
    if (info->sent < info->head && info->sent < tracked->file.decompressed_to()) {
      if (!archive_waits_since_) archive_waits_since_ = now;
      next_archive_ = *archive_waits_since_ + kPatience;  // sooner when it is sent
      if (now < next_archive_) return 0;
      next_one();
      continue;
    }
    archive_waits_since_.reset();
    const auto n = tracked->file.read_on();
    if (!n && n.error().code == ErrorCode::kReplaced) {
      reincarnate(*tracked, wire::LossReason::kTruncated);
      return 1;
    }
    if (!n) {
      if (named_unreadable_.insert(tracked->file.path()).second) {
        log::warn("cannot read an archive, will keep trying", {{"path", tracked->file.path()}, {"error", n.error()}});
      }
      archives_.pop_front();
      doubtful_.insert(id);
      continue;
    }
    refresh(*tracked);
    publisher_->readable(id);
    return *n + 1;
  }
  next_archive_ = now + kUnwantedRetry;
  return 0;
}

/// Of an archive that was read to where it ends, ends within a member, or is damaged: is that its end?
void Tailer::judge_archive(Tracked& tracked) {
  const StreamId id = tracked.id;
  doubtful_.erase(id);
  if (tracked.sealed_since) return;
  refresh(tracked);  // it is doubtful again, if it still is
  const wire::StreamInfo* info = publisher_->info(id);
  if (!doubtful_.contains(id) || info == nullptr || !tracked.file.is_open()) return;
  if (tracked.file.archive_rest() == Archive::Rest::kMore || info->sent < tracked.file.decompressed_to()) return;
  const bool written_on = tracked.file.all_decompressed() ? tracked.file.writers() == Writers::kSome
                                                          : tracked.file.being_written(wall_now());
  if (written_on) return;
  end_archive(tracked);
}

/// What is behind its last byte that could be read is lost, however much it is; of one that is complete that is what
/// was seen in the file that it was made of, and not in it. What was sent stays readable.
void Tailer::end_archive(Tracked& tracked) {
  const StreamId id = tracked.id;
  const auto mark = tracked.file.verdict_mark();
  if (!mark) return;  // next time
  if (tracked.file.all_decompressed()) {
    const FileOffset end = tracked.file.fingerprint().cursor;
    const FileOffset seen = std::max(end, tracked.seen_to.value_or(end));
    if (seen > end) tracked.copied_to = end;
    publisher_->seal(id, seen, std::nullopt);
  } else {
    damaged(tracked);
  }
  tracked.sealed = true;
  tracked.head = publisher_->info(id)->head;
  tracked.archive = *mark;
  tracked.sealed_since = now_;
  ++counters_.streams_sealed;
  doubtful_.erase(id);
  dirty_.insert(id);
}

void Tailer::damaged(Tracked& tracked) {
  const StreamId id = tracked.id;
  log::error("an archive cannot be read to its end, the rest is lost", {{"stream", id},
                                                                        {"path", tracked.file.path()},
                                                                        {"offset", tracked.file.fingerprint().cursor},
                                                                        {"error", tracked.file.archive_error()}});
  publisher_->cut_off(id, wire::LossReason::kArchiveDamaged);
  tracked.gone = wire::LossReason::kArchiveDamaged;
  ++counters_.given_up_bytes;
}

/// What became of the archive that a stream has ended with.
Tailer::Archived Tailer::archive_file(Tracked& tracked) {
  auto status = status_of(tracked.file.path());
  if (!tracked.deleted_since && (!status || status->key != tracked.key)) {
    const auto directory = std::filesystem::path(tracked.file.path()).parent_path();
    if (const auto there = find_in_directory(directory, {tracked.key}); !there.empty()) {
      rename(tracked, there.begin()->second);
      status = status_of(tracked.file.path());
    }
  }
  if (!status || status->key != tracked.key) {
    // Without a name and without a descriptor nobody can read it any more.
    if (!tracked.file.is_open()) give_up(tracked, wire::LossReason::kDeleted);
    return Archived::kGone;
  }
  if (!tracked.archive || status->size != tracked.archive->compressed) return Archived::kChanged;
  // Another may have got its inode, and be as long.
  auto file = FileContent::open(tracked.file.path(), tracked.key);
  if (!file) return Archived::kSame;  // cannot be read just now
  const UniqueFd fd = file->take_fd();
  const auto mark = Archive::mark_at(fd.get(), status->size, tracked.archive->offset, tracked.archive->origin);
  return !mark || mark->digest == tracked.archive->digest ? Archived::kSame : Archived::kChanged;
}

}  // namespace fantail
