// The part of Tailer that reads archives on: whose turn it is, when one is complete, and what becomes of one that
// cannot be read to its end.
#include <sys/stat.h>

#include <algorithm>

#include "producer/tracked.h"

namespace fantail {
namespace {

constexpr std::size_t kLooksPerTurn = 64;  // at archives that nobody wants now
constexpr Duration kUnwantedRetry = 50ms;
constexpr Duration kPatience = 1s;  // with one whose bytes are not taken while others wait

}  // namespace

/// Whether there is something to decompress in it.
void Tailer::look_at_archive(const Tracked& tracked) {
  const StreamId id = tracked.record.info.stream;
  const auto rest = tracked.file.archive_rest();
  if (!rest || tracked.sealed_since) return;
  if (*rest == Archive::Rest::kIncomplete || *rest == Archive::Rest::kDamaged) {
    doubtful_.insert(id);
    return;
  }
  doubtful_.erase(id);
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
    if (info->sent < info->head) {
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
    return *n + 1;
  }
  next_archive_ = now + kUnwantedRetry;
  return 0;
}

/// Of an archive that ends within a member, or that is damaged there: is that its end?
void Tailer::judge_archive(Tracked& tracked) {
  const StreamId id = tracked.record.info.stream;
  doubtful_.erase(id);
  if (tracked.sealed_since) return;
  refresh(tracked);  // it is doubtful again, if it still is
  const wire::StreamInfo* info = publisher_->info(id);
  if (!doubtful_.contains(id) || info == nullptr || info->sent < info->head || !tracked.file.is_open()) return;
  if (tracked.file.being_written(wall_now())) return;
  end_archive(tracked);
}

/// What is behind its last byte that could be read is lost, however much it is. What was sent stays readable.
void Tailer::end_archive(Tracked& tracked) {
  const StreamId id = tracked.record.info.stream;
  const auto mark = tracked.file.verdict_mark();
  if (!mark) return;  // next time
  log::error("an archive cannot be read to its end, the rest is lost", {{"stream", id},
                                                                        {"path", tracked.file.path()},
                                                                        {"offset", tracked.file.fingerprint().cursor},
                                                                        {"error", tracked.file.archive_error()}});
  publisher_->cut_off(id, wire::LossReason::kArchiveDamaged);
  tracked.record.info.sealed = true;
  tracked.record.info.head = publisher_->info(id)->head;
  tracked.record.gone = wire::LossReason::kArchiveDamaged;
  tracked.record.archive = *mark;
  tracked.sealed_since = now_;
  ++counters_.given_up_bytes;
  ++counters_.streams_sealed;
  doubtful_.erase(id);
  dirty_.insert(id);
}

/// What became of the file of an archive that was given up.
Tailer::Archived Tailer::damaged_file(Tracked& tracked) {
  struct stat status {};
  const std::string& path = tracked.file.path();
  if (::stat(path.c_str(), &status) != 0 || FileKey{status.st_dev, status.st_ino} != tracked.record.key) {
    // Without a name and without a descriptor nobody can read it any more.
    if (!tracked.file.is_open()) give_up(tracked, wire::LossReason::kDeleted);
    return Archived::kGone;
  }
  const auto size = static_cast<std::uint64_t>(status.st_size);
  return tracked.record.archive && size == tracked.record.archive->compressed ? Archived::kSame : Archived::kChanged;
}

}  // namespace fantail
