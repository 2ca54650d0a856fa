#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/storage/append_file.h"
#include "common/storage/state_directory.h"
#include "common/stream/stream_source.h"
#include "state/change.h"
#include "state/store.h"

namespace fantail::state {

/// What a change must have reached before its answer is sent.
enum class Durability : std::uint8_t {
  kNone,   ///< memory: written soon; the death of the process may lose the last changes
  kWrite,  ///< the kernel: survives the death of the process, not the loss of power
  kFsync,  ///< the disk
};

using EpochId = Id128<struct EpochTag>;

/// A stretch of history without a break. Where the system stopped, changes that others have seen may be lost, and their
/// revisions come again with other contents: then another epoch begins.
struct Epoch {
  EpochId id;
  std::uint64_t base = 0;  ///< the last revision that the ones before and this one have in common
};

/// One file of a journal: a stream that begins with a snapshot and goes on with every change since. Lines of JSON, see
/// change.h.
class JournalFile final : public StreamSource {
 public:
  JournalFile(AppendFile file, StreamId stream, std::uint64_t sequence)
      : file_(std::move(file)), stream_(stream), sequence_(sequence) {}

  Result<std::size_t> read_at(FileOffset offset, std::span<std::byte> buffer) override {
    return file_.read_at(offset.raw, buffer);
  }
  void mark_sent(FileOffset, std::span<const std::byte>) override {}

  AppendFile& file() { return file_; }
  const std::filesystem::path& path() const { return file_.path(); }
  StreamId stream() const { return stream_; }
  std::uint64_t sequence() const { return sequence_; }
  FileOffset end() const { return {file_.length()}; }
  /// Where the snapshot ends and the changes begin.
  FileOffset snapshot_end() const { return {snapshot_end_}; }
  /// The first change that is in it has the revision behind this one.
  std::uint64_t base_revision() const { return base_revision_; }

  /// A place at or before the first change behind `revision`: from there on no such change is missing. The revision
  /// must be at least base_revision().
  FileOffset place_behind(std::uint64_t revision) const;

 private:
  friend class Journal;
  void note(std::uint64_t revision, std::uint64_t offset);

  AppendFile file_;
  StreamId stream_;
  std::uint64_t sequence_;
  std::uint64_t snapshot_end_ = 0;
  std::uint64_t base_revision_ = 0;
  struct Mark {
    std::uint64_t revision;  ///< of the change that begins at `offset`
    std::uint64_t offset;
  };
  std::vector<Mark> marks_;  ///< one each 64 KiB or so
};

/// The durable memory of a StateStore: what it was told is in the current file, in order of revision. Compaction begins
/// another file, with a snapshot, a piece at a time; the one before is kept until the next. One thread.
class Journal {
 public:
  /// Opens what `directory` holds and replays it into `store`, or begins a first file. A record that was cut off by a
  /// crash is removed; a file that is damaged elsewhere is set aside and what is before the damage goes on in a new
  /// file: both are logged. Where changes that others have seen may be gone, the stream gets another id and another
  /// epoch begins. Room on the disk is needed for the index alone, but for a damaged file, which is left as it is until
  /// there is room for the new one.
  static Result<Journal> open(const StateDirectory& directory, StateStore& store);

  JournalFile& current() { return *current_; }
  /// The one before: complete, for those who still read it. nullptr: there is none.
  JournalFile* previous() { return previous_.get(); }

  EpochId epoch() const { return epochs_.back().id; }
  /// For somebody who has seen the history up to `revision` in `epoch`: the last revision of which that is still true;
  /// nothing: all of it is. An epoch that is not known any more counts as the oldest.
  std::optional<std::uint64_t> diverged(EpochId epoch, std::uint64_t revision) const;

  /// Appends and makes durable what the store changed. On error nothing of it is in the file.
  Status commit(const std::vector<Change>& changes, Durability durability);
  /// For Durability::kNone: hands over what commit() kept back.
  Status flush();
  bool unwritten() const { return !buffer_.empty(); }

  /// Begins to compact; piece() does it.
  Status begin_compaction(const StateStore& store);
  bool compacting() const { return compaction_ != nullptr; }
  /// A bounded piece. True: it is complete, current() is another file now and previous() the one that was.
  Result<bool> compact_piece(const StateStore& store);

 private:
  struct Compaction {
    std::unique_ptr<JournalFile> file;
    std::string name_space;  ///< the last entry that was written
    std::string key;
    std::uint64_t entries = 0;
    std::uint64_t tail = 0;  ///< of the old file: what is behind still has to be copied
    bool scanned = false;
  };
  explicit Journal(std::filesystem::path directory) : directory_(std::move(directory)) {}
  std::filesystem::path file_path(std::uint64_t sequence) const;
  Result<std::unique_ptr<JournalFile>> create(StreamId stream, std::uint64_t sequence) const;
  Result<std::unique_ptr<JournalFile>> open_file(StreamId stream, std::uint64_t sequence) const;
  enum class Ending : std::uint8_t {
    kWhole,
    kUnfinished,  ///< part of a line: not acknowledged and not published
    kBadLine,     ///< it may have been good once
    kDamaged,     ///< good lines are behind the bad one
  };
  static Result<Ending> replay(JournalFile& file, StateStore& store);
  Status begin_anew(const StateStore& store);
  Status remember() const;
  void clean_up() const;
  void begin_epoch(std::uint64_t base);

  std::filesystem::path directory_;
  std::unique_ptr<JournalFile> current_;
  std::unique_ptr<JournalFile> previous_;
  std::unique_ptr<JournalFile> retired_;  ///< the one before that, for who has not let go of it yet
  std::unique_ptr<Compaction> compaction_;
  std::vector<Epoch> epochs_;  ///< oldest first, never empty
  std::string buffer_;         ///< of Durability::kNone: not written yet
  // Of commit(), which is called often:
  std::string lines_;
  std::vector<JournalFile::Mark> marks_;
};

}  // namespace fantail::state
