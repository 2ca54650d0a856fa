#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/base/types.h"
#include "producer/archive_budget.h"
#include "producer/decompressor.h"

namespace fantail {

/// A place where an archive can be read on from without anything of what was before: the end of a member or a frame.
/// Kept over restarts.
struct ArchiveMark {
  std::uint64_t compressed = 0;  ///< bytes of the file
  FileOffset offset;             ///< bytes of the stream
  std::uint64_t digest = 0;      ///< of the min(compressed, 64) bytes of the file before it
  std::uint64_t origin = 0;      ///< where in the file the stream begins: not at 0 if that began with what was appended
  bool operator==(const ArchiveMark&) const = default;
};

/// The decompressed bytes of a .gz or .zst file, all its members or frames: read on at the end as the file grows, and
/// read again at any offset. While reading it keeps points to start from, so that an old offset is found without
/// starting over (gzip; of zstd the frames), and several places where it reads, so that live reading and fetches do not
/// throw each other back. Every call does a bounded piece.
///
/// Owns no file: the descriptor comes with each call and must be of the same file. Bytes of another never get into the
/// stream: each call compares the beginning of the file and what is before the place that was read.
class Archive {
 public:
  static constexpr std::size_t kStepBytes = 512 * 1024;   ///< decompressed by go_on(), at most
  static constexpr std::size_t kSeekBytes = 1024 * 1024;  ///< decompressed on the way to an offset by one read()
  static constexpr std::size_t kHeadBytes = 4096;
  static constexpr std::size_t kTailBytes = 64;

  /// `end`: so far it was read before; what is known of that is `mark`, not behind it. The budget must outlive it.
  Archive(ArchiveFormat format, ArchiveBudget& budget, FileOffset end, const ArchiveMark& mark);
  ~Archive();
  Archive(const Archive&) = delete;
  Archive& operator=(const Archive&) = delete;

  /// What is behind end().
  enum class Rest : std::uint8_t {
    kMore,        ///< there may be bytes: go_on()
    kNone,        ///< the file ends where a member ends
    kIncomplete,  ///< the file ends within a member
    kDamaged,     ///< it cannot be decompressed, see damage()
  };
  Rest rest(std::uint64_t file_size) const;
  /// Decompresses the next piece; end() moves when there was some. Before that, after a restart or a release(), it may
  /// take several calls to come to end() again. Returns the bytes decompressed.
  Result<std::size_t> go_on(int fd);
  /// Reads what is below end(). kWouldBlock: not there yet, ask again; kReplaced: the bytes are not those any more.
  Result<std::size_t> read(int fd, FileOffset offset, std::span<std::byte> buffer);
  /// The first bytes, kHeadBytes at most; less only if there is no more yet. Valid until the next call.
  Result<std::span<const std::byte>> head(int fd);
  /// The bytes before end(), kTailBytes at most; empty if they are not known, as when reading went on from a mark.
  std::span<const std::byte> tail() const;
  /// The mark of a file that is complete up to `compressed`.
  static Result<ArchiveMark> mark_at(int fd, std::uint64_t compressed, FileOffset offset, std::uint64_t origin);
  /// kReplaced if the file is not the one that was read.
  Status verify(int fd) const;

  std::uint64_t origin() const { return origin_; }
  FileOffset end() const { return end_; }
  /// Whether it has come to end() since it was made.
  bool arrived() const { return arrived_; }
  const std::optional<Error>& damage() const { return damage_; }
  /// The last boundary at or before `sent`, which go_on() takes to be end() whenever it is called.
  const ArchiveMark& mark(FileOffset sent) const { return latest_.offset <= sent ? latest_ : mark_; }
  /// Bytes of the file that are used up at end().
  std::uint64_t compressed_end() const { return compressed_end_; }
  /// Decompressed in all, again and again included.
  std::uint64_t decompressed_bytes() const { return decompressed_bytes_; }
  std::size_t memory_bytes() const;
  /// What it gives back now costs as much again.
  bool under_way() const;
  /// Gives back all memory. Reading goes on, from the beginning or the mark.
  void release();

 private:
  /// One place where it is read.
  struct Reader {
    std::unique_ptr<Decompressor> decompressor;
    std::uint64_t compressed = 0;
    FileOffset offset;
    std::optional<FileOffset> seeking{};  ///< on its way there
    std::uint64_t used = 0;               ///< the call that used it last
    bool drained = false;                 ///< at the end of the file, and nothing more came out
    std::vector<std::byte> last{};        ///< the bytes before `offset`, in case that they are asked for again
  };
  struct Point {
    std::uint64_t compressed;
    std::unique_ptr<Decompressor> state;  ///< null at a boundary
    std::size_t bytes;
  };

  Reader reader_from(FileOffset offset) const;
  Reader* reader_for(FileOffset offset);
  Result<std::size_t> decompress(int fd, Reader& reader, std::span<std::byte> out, std::optional<Error>& damage);
  Result<std::size_t> seek(int fd, Reader& reader, FileOffset offset, std::size_t most, std::optional<Error>& damage);
  void passed(const Reader& reader);
  void add_point(FileOffset at, Point point);
  void remember_tail(std::span<const std::byte> bytes);
  Status reached(int fd, std::uint64_t compressed);
  Status keep_boundary(int fd);
  static Result<std::uint64_t> digest_before(int fd, std::uint64_t compressed);
  void account() { budget_.used(*this, memory_bytes()); }

  ArchiveFormat format_;
  ArchiveBudget& budget_;
  std::uint64_t origin_;
  FileOffset end_;
  std::uint64_t compressed_end_ = 0;
  bool arrived_;
  bool drained_ = false;
  bool at_boundary_;
  std::optional<Error> damage_;
  ArchiveMark mark_;              ///< the last boundary before `ahead_`
  ArchiveMark latest_;            ///< the last boundary before end_
  ArchiveMark passed_;            ///< the same, its digest not known yet
  std::optional<Reader> front_;   ///< at end_, or on its way there
  std::vector<Reader> again_;     ///< for what is read again
  std::vector<std::byte> ahead_;  ///< the last bytes before end_
  std::map<FileOffset, Point> points_;
  std::size_t point_bytes_ = 0;
  std::uint64_t spacing_;  ///< of points, in bytes of the stream
  std::vector<std::byte> head_;
  std::array<std::byte, kTailBytes> tail_{};
  std::size_t tail_known_ = 0;
  std::uint64_t file_head_length_ = 0;  ///< of the file, as far as it was read: what verify() compares
  std::uint64_t file_head_digest_ = 0;
  std::uint64_t file_tail_at_ = 0;  ///< where the digest of the bytes before is known
  std::uint64_t file_tail_digest_ = 0;
  std::uint64_t decompressed_bytes_ = 0;
  std::uint64_t calls_ = 0;
};

}  // namespace fantail
