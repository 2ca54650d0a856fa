// The part of Tailer that finds out what is in archives which may be copies: they are read through, one after the other
// and piece by piece, before they are compared with streams.
#include <algorithm>
#include <array>

#include "producer/tracked.h"

namespace fantail {
namespace {

constexpr Duration kWriterRetry = 1s;  // of an archive that is still being written
constexpr Duration kKeptFor = 10s;     // what is known of one, since it was asked for

}  // namespace

/// What is in the file, if it is an archive; null if it is none, or archives are sent as they are.
ArchiveContent* Tailer::unpacked(FileContent& file, const std::string& path, FileKey key) {
  std::array<std::byte, kMagicBytes> space{};
  const auto n = config_.decompress ? file.read_at(0, space) : Result<std::size_t>(0);
  if (!archive_format(std::span(space).first(n.value_or(0)))) return nullptr;
  auto found = unpacking_.find(key);
  if (found == unpacking_.end()) {
    auto content = ArchiveContent::open(path, key, archive_budget_);
    if (!content) return nullptr;
    found = unpacking_.emplace(key, Unpacking{std::move(content)}).first;
  } else {
    found->second.content->is_at(path);
  }
  found->second.asked = now_;
  return found->second.content.get();
}

/// Reads the next piece of the first that somebody waits for.
std::size_t Tailer::unpack(MonoTime now) {
  std::erase_if(unpacking_, [&](const auto& entry) {
    return !entry.second.content->under_way() && now - entry.second.asked >= kKeptFor;
  });
  for (auto& [key, archive] : unpacking_) {
    if (!archive.content->under_way() || now < archive.next) continue;
    switch (archive.content->go_on()) {
      case ArchiveContent::Step::kMore: return 1;
      case ArchiveContent::Step::kWaits: archive.next = now + kWriterRetry; continue;
      case ArchiveContent::Step::kThrough: break;
    }
    archive.asked = now;
    settle_unpacked(key);
    return 1;
  }
  return 0;
}

/// Streams that have lost their file may go on in it; those whose file may be found yet are seen to in
/// resolve_missing(), and files that wait are compared with it in settle_pending().
void Tailer::settle_unpacked(FileKey key) {
  for (const StreamId id : std::exchange(unpacking_.at(key).of, {})) {
    Tracked* tracked = find(id);
    if (tracked == nullptr || tracked->sealed_since) continue;
    if (tracked->without_file || tracked->deleted_since) {
      find_copy(*tracked, tracked->without_file.value_or(wire::LossReason::kDeleted), false);
    }
  }
}

/// Whether an archive that may be a copy of it is read through.
bool Tailer::awaits_archive(StreamId id) const {
  return std::any_of(unpacking_.begin(), unpacking_.end(), [&](const auto& entry) {
    return entry.second.content->under_way() && entry.second.of.contains(id);
  });
}

/// Whether an archive has taken the place of its file.
bool Tailer::lives_in_archive(const Tracked& tracked) const {
  const auto copy = copies_.find(tracked.key);
  return copy != copies_.end() && copy->second.record.stream == tracked.id && tracked.file.archive_mark();
}

}  // namespace fantail
