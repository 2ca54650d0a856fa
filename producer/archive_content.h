#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "producer/adoption.h"
#include "producer/archive.h"

namespace fantail {

/// What is in an archive, as far as it has to be known for telling whose copy it is: its beginning, how much there is,
/// and the bytes before some offsets. Nothing but its beginning is known before the archive was read through, once and
/// piece by piece.
class ArchiveContent final : public Content {
 public:
  /// Null if the file is no archive or cannot be read. The budget must outlive it.
  static std::unique_ptr<ArchiveContent> open(const std::string& path, FileKey key, ArchiveBudget& budget);

  const std::string& path() const { return path_; }
  ArchiveFormat format() const { return format_; }
  /// It is at that name now. Whether it was changed is looked at then.
  void is_at(const std::string& path);

  bool tells(std::span<const std::uint64_t> ends) override;
  /// Of an archive that was not read through yet: at least.
  std::uint64_t size() const override;
  Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> buffer) override;

  /// Whether it has to be read through for what it was asked.
  bool under_way() const { return under_way_; }
  enum class Step : std::uint8_t {
    kMore,
    kThrough,
    kWaits,  ///< it ends within a member, and somebody may still write to it
  };
  /// Reads the next piece.
  Step go_on();
  /// Where one can begin who needs nothing of what is before; its end, if it was read through and is complete.
  ArchiveMark mark(FileOffset before) const;

 private:
  using Bytes = std::vector<std::byte>;

  ArchiveContent(std::string path, FileKey key, ArchiveFormat format, ArchiveBudget& budget)
      : path_(std::move(path)), key_(key), format_(format), budget_(budget) {}
  bool begin();
  void keep_tails(FileOffset before, const Bytes& last);
  Step stop(std::uint64_t size);
  Step failed();

  std::string path_;
  FileKey key_;
  ArchiveFormat format_;
  ArchiveBudget& budget_;
  UniqueFd fd_;                       ///< while it is read
  std::unique_ptr<Archive> archive_;  ///< the same
  FileStatus status_;                 ///< when it was looked at
  Bytes head_;
  std::set<std::uint64_t> ends_;          ///< of what it was asked for
  std::map<std::uint64_t, Bytes> tails_;  ///< by their ends
  std::uint64_t size_ = 0;
  std::optional<ArchiveMark> end_;
  bool under_way_ = false;
  bool through_ = false;
  int failures_ = 0;
};

}  // namespace fantail
