#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "common/base/clock.h"
#include "producer/archive_content.h"
#include "producer/file_content.h"

namespace fantail {

/// Archives that may be copies of streams. They are read through, one after the other and piece by piece, before it can
/// be told whose copies they are. Knows files and ids, decides nothing about streams. One thread.
class Unpacking {
 public:
  /// The budget must outlive it.
  explicit Unpacking(ArchiveBudget& budget) : budget_(budget) {}

  /// What is in the file; null if it is no archive. Kept for a while after it was asked for last.
  ArchiveContent* content_of(FileContent& file, const std::string& path, FileKey key, MonoTime now);
  /// These streams wait for what is in it: as far as its beginning tells it may be theirs.
  void awaited_by(FileKey key, std::span<const StreamId> streams);
  bool is_awaited_by(StreamId stream) const;
  bool under_way(FileKey key) const;
  bool under_way() const;
  /// Where those are that are kept.
  std::map<FileKey, std::string> places() const;

  struct Progress {
    bool any = false;                  ///< something was read
    std::optional<FileKey> through{};  ///< this one was read through
    std::set<StreamId> of{};           ///< who waited for it
  };
  /// Reads the next piece of the first that somebody waits for.
  Progress go_on(MonoTime now);
  /// When there is something to read; nothing: nothing waits.
  std::optional<MonoTime> due() const;

 private:
  struct Entry {
    std::unique_ptr<ArchiveContent> content;
    std::set<StreamId> of{};
    MonoTime asked{};
    MonoTime next{};  ///< when it is read on
  };
  ArchiveBudget& budget_;
  std::map<FileKey, Entry> archives_;
};

}  // namespace fantail
