#include "producer/known_copies.h"

#include <utility>
#include <vector>

namespace fantail {

Status KnownCopies::load(Registry& registry, MonoTime now, std::uint64_t walk) {
  auto copies = registry.load_copies();
  if (!copies) return tl::unexpected(copies.error());
  for (CopyRecord& record : *copies) {
    const FileKey key = record.key;
    copies_[key] = {std::move(record), now, walk};
  }
  return {};
}

Status KnownCopies::save(Registry& registry) {
  std::vector<CopyRecord> changed;
  std::vector<FileKey> dropped;
  for (const FileKey key : unsaved_) {
    const auto found = copies_.find(key);
    if (found == copies_.end()) {
      dropped.push_back(key);
    } else {
      changed.push_back(found->second.record);
    }
  }
  if (auto ok = registry.save_copies(changed, dropped); !ok) return ok;
  unsaved_.clear();
  return {};
}

const KnownCopies::Copy* KnownCopies::find(FileKey key) const {
  const auto found = copies_.find(key);
  return found == copies_.end() ? nullptr : &found->second;
}

void KnownCopies::put(CopyRecord record, MonoTime now, std::uint64_t walk) {
  const FileKey key = record.key;
  copies_[key] = {std::move(record), now, walk};
  unsaved_.insert(key);
}

void KnownCopies::update(CopyRecord record) {
  unsaved_.insert(record.key);
  Copy& copy = copies_.at(record.key);
  copy.record = std::move(record);
}

void KnownCopies::met(FileKey key, const std::string& path, std::uint64_t walk) {
  copies_.at(key).walk = walk;
  rename(key, path);
}

void KnownCopies::rename(FileKey key, const std::string& path) {
  CopyRecord& record = copies_.at(key).record;
  if (record.path == path) return;
  record.path = path;
  unsaved_.insert(key);
}

void KnownCopies::erase(FileKey key) {
  if (copies_.erase(key) > 0) unsaved_.insert(key);
}

void KnownCopies::drop_gone(std::uint64_t walk) {
  std::erase_if(copies_, [&](const auto& entry) {
    if (entry.second.walk + 1 >= walk) return false;
    const auto there = key_of(entry.second.record.path);
    if (there && *there == entry.first) return false;
    unsaved_.insert(entry.first);
    return true;
  });
}

}  // namespace fantail
