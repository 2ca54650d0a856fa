#include "producer/unpacking.h"

#include <algorithm>
#include <array>
#include <utility>

namespace fantail {
namespace {

constexpr Duration kWriterRetry = 1s;  // of an archive that is still being written
constexpr Duration kKeptFor = 10s;     // what is known of one, since it was asked for

}  // namespace

ArchiveContent* Unpacking::content_of(FileContent& file, const std::string& path, FileKey key, MonoTime now) {
  std::array<std::byte, kMagicBytes> space{};
  const auto n = file.read_at(0, space);
  const auto format = archive_format(std::span(space).first(n.value_or(0)));
  if (!format) return nullptr;
  auto found = archives_.find(key);
  if (found != archives_.end() && found->second.content->format() != *format) {
    archives_.erase(found);  // the inode was used again
    found = archives_.end();
  }
  if (found == archives_.end()) {
    auto content = ArchiveContent::open(path, key, budget_);
    if (!content) return nullptr;
    found = archives_.emplace(key, Entry{std::move(content)}).first;
  } else {
    found->second.content->is_at(path);
  }
  found->second.asked = now;
  return found->second.content.get();
}

void Unpacking::awaited_by(FileKey key, std::span<const StreamId> streams) {
  archives_.at(key).of.insert(streams.begin(), streams.end());
}

bool Unpacking::is_awaited_by(StreamId stream) const {
  return std::any_of(archives_.begin(), archives_.end(), [&](const auto& entry) {
    return entry.second.content->under_way() && entry.second.of.contains(stream);
  });
}

bool Unpacking::under_way(FileKey key) const {
  const auto found = archives_.find(key);
  return found != archives_.end() && found->second.content->under_way();
}

bool Unpacking::under_way() const {
  return std::any_of(archives_.begin(), archives_.end(),
                     [](const auto& entry) { return entry.second.content->under_way(); });
}

std::map<FileKey, std::string> Unpacking::places() const {
  std::map<FileKey, std::string> out;
  for (const auto& [key, entry] : archives_) out.emplace(key, entry.content->path());
  return out;
}

Unpacking::Progress Unpacking::go_on(MonoTime now) {
  std::erase_if(archives_, [&](const auto& entry) {
    return !entry.second.content->under_way() && now - entry.second.asked >= kKeptFor;
  });
  for (auto& [key, entry] : archives_) {
    if (!entry.content->under_way() || now < entry.next) continue;
    switch (entry.content->go_on()) {
      case ArchiveContent::Step::kMore: return {.any = true};
      case ArchiveContent::Step::kWaits: entry.next = now + kWriterRetry; continue;
      case ArchiveContent::Step::kThrough: break;
    }
    entry.asked = now;
    return {.any = true, .through = key, .of = std::exchange(entry.of, {})};
  }
  return {};
}

std::optional<MonoTime> Unpacking::due() const {
  std::optional<MonoTime> at;
  for (const auto& [key, entry] : archives_) {
    if (entry.content->under_way()) at = std::min(at.value_or(entry.next), entry.next);
  }
  return at;
}

}  // namespace fantail
