#pragma once

#include <map>
#include <set>
#include <string>

#include "common/base/clock.h"
#include "producer/file_content.h"
#include "producer/registry.h"

namespace fantail {

/// Files that are there and are not sent because streams have their bytes: what rotation by copying leaves, and what
/// streams end with. Remembers which of them the registry does not know of yet. One thread.
class KnownCopies {
 public:
  struct Copy {
    CopyRecord record;
    MonoTime seen{};         ///< when it was found to be one, as far as it went
    std::uint64_t walk = 0;  ///< the last that came by it
  };

  Status load(Registry& registry, MonoTime now, std::uint64_t walk);
  /// What has changed; on error it stays to be saved.
  Status save(Registry& registry);
  bool unsaved() const { return !unsaved_.empty(); }

  /// Null: it is none.
  const Copy* find(FileKey key) const;
  const std::map<FileKey, Copy>& all() const { return copies_; }
  void put(CopyRecord record, MonoTime now, std::uint64_t walk);
  /// The same copy has grown.
  void update(CopyRecord record);
  /// A walk has come by it under this name.
  void met(FileKey key, const std::string& path, std::uint64_t walk);
  void rename(FileKey key, const std::string& path);
  void erase(FileKey key);
  /// After a walk: those that two in a row did not come by, and whose name leads to something else.
  void drop_gone(std::uint64_t walk);

 private:
  std::map<FileKey, Copy> copies_;
  std::set<FileKey> unsaved_;  ///< changed or erased
};

}  // namespace fantail
