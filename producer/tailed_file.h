#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/base/unique_fd.h"
#include "common/stream/stream_source.h"
#include "common/wire/messages.h"
#include "producer/archive.h"
#include "producer/open_files.h"

namespace fantail {

/// Which file: unique on one machine while the file exists, reused after.
struct FileKey {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  auto operator<=>(const FileKey&) const = default;
};

}  // namespace fantail
template <>
struct std::hash<fantail::FileKey> {
  std::size_t operator()(const fantail::FileKey& key) const noexcept {
    return std::hash<std::uint64_t>{}(key.inode * 31 + key.device);
  }
};
namespace fantail {

struct FileStatus {
  FileKey key;
  std::uint64_t size = 0;
  WallTime modified;
  WallTime changed;  ///< also by what keeps the modification time: names, owners, a time that was set
};

/// What a file must still contain to be the one that was read before. Covers only bytes that were there, so that a file
/// that only grows always matches.
struct Fingerprint {
  static constexpr std::size_t kHeadBytes = wire::kMaxIdentityHeadBytes;
  static constexpr std::size_t kTailBytes = 64;
  FileOffset cursor;              ///< everything below was read
  std::uint32_t head_length = 0;  ///< of the head digest: min(cursor, kHeadBytes), less just after growing, more at 0
  std::uint64_t head_digest = 0;
  std::uint64_t tail_digest = 0;  ///< of the min(cursor, kTailBytes) bytes before the cursor
  bool operator==(const Fingerprint&) const = default;
};

/// What consumers are told of it.
wire::FileIdentity identity_of(FileKey key, const Fingerprint& fingerprint);

/// Whether somebody can still write to an open file. While the kernel is asked (some microseconds) it holds up others
/// who open the file. kUnknown: this file system or our rights do not let us ask.
enum class Writers : std::uint8_t { kNone, kSome, kUnknown };
Writers writers_of(int fd);
/// Whether an open file may still be on its way here: written to lately, or open for writing.
bool is_being_written(int fd, WallTime now);

/// One incarnation of one file as a stream. Every read is checked against the fingerprint, so bytes of another
/// incarnation never get into the stream: not after truncation, rewriting in place or reuse of the inode.
///
/// Of an archive the stream is its decompressed bytes: offsets and the fingerprint are of these. Whose bytes they are
/// is told by the compressed ones, which are compared by every read.
///
/// The descriptor is opened on demand by path; a file that may be deleted before all of it was read must be kept open.
class TailedFile final : public StreamSource {
 public:
  TailedFile(std::string path, FileKey key, Fingerprint fingerprint);
  ~TailedFile() override { close(); }

  /// Its descriptor counts there from now on, as that of `stream`. `open_files` must outlive it.
  void count_in(OpenFiles& open_files, StreamId stream) {
    open_files_ = &open_files;
    counted_as_ = stream;
  }

  Result<std::size_t> read_at(FileOffset offset, std::span<std::byte> buffer) override;
  void mark_sent(FileOffset sent, std::span<const std::byte> last) override;

  struct Look {
    std::uint64_t size = 0;   ///< of an archive: what was decompressed so far
    std::uint64_t names = 1;  ///< 0: only an open descriptor keeps it
    bool deleted() const { return names == 0; }
  };
  /// Opens if need be and tells its size. kReplaced if it is another incarnation. A file that has bytes behind the
  /// cursor is compared with its fingerprint only if `verify`: without it the read that must follow finds out.
  /// kNotFound if the path leads nowhere or to another file, and no descriptor is open. kBusy if no more descriptors
  /// are allowed.
  Result<Look> look(bool verify);

  /// Whether it is closed, read to the end, and as it was when look() found it so: then another look tells nothing.
  bool unchanged_since_look(const FileStatus& status) const;

  /// If it begins as an archive does, its decompressed bytes are the stream. `mark`: they were before, too; without it
  /// nothing may have been read yet. To be called before anything is read.
  void read_archive(ArchiveBudget& budget, const std::optional<ArchiveMark>& mark);
  /// What is behind the size that look() told: nothing for a file that is no archive. As of the last look.
  std::optional<Archive::Rest> archive_rest() const;
  bool all_decompressed() const { return archive_rest().value_or(Archive::Rest::kNone) == Archive::Rest::kNone; }
  /// Where reading on goes on, as of the last look; nothing for a file that is no archive.
  std::optional<FileOffset> decompressed_to() const;
  /// Decompresses the next piece; look() has the new size. Returns the bytes decompressed.
  Result<std::size_t> read_on();
  /// Where a later run may begin; nothing for a file that is no archive.
  std::optional<ArchiveMark> archive_mark() const;
  /// Why an archive that is damaged or ends too early cannot be read on.
  Error archive_error() const;
  /// How it is on disk, for knowing later whether it was changed.
  Result<ArchiveMark> verdict_mark() const;

  /// Remembers the beginning of a file of which nothing was read yet, as far as it is there.
  Status learn_head();

  /// Begins at `cursor`: what is before was read by somebody who remembers no more of it than the head. kReplaced if
  /// the file is shorter, or its beginning is another.
  Status skip_to(FileOffset cursor);
  /// Begins at the present end instead of at 0: what is there already is no part of the stream.
  Result<FileOffset> skip_to_end();

  /// Opens by path. kNotFound when nothing or another file is there.
  Status open();
  void close();
  bool is_open() const { return static_cast<bool>(fd_); }
  int fd() const { return fd_.get(); }

  Writers writers() const { return writers_of(fd_.get()); }
  bool being_written(WallTime now) const { return is_being_written(fd_.get(), now); }

  const std::string& path() const { return path_; }
  void set_path(std::string path) { path_ = std::move(path); }  ///< it was renamed
  /// Another file has the same bytes and takes its place. `archives`: it has them compressed, and up to `mark` no more
  /// is to be known of it than that.
  void move_to(std::string path, FileKey key, ArchiveBudget* archives, const ArchiveMark& mark);
  /// Closes it until something happens. Of one that is read to the end it is remembered how it was, see
  /// unchanged_since_look().
  void rest();
  /// Somebody opened it before.
  void keep_open(UniqueFd fd);
  /// For keep_open() of another object.
  UniqueFd take_descriptor() { return std::move(fd_); }
  /// How long it was when it was opened or looked at last. Of an archive: as it is on disk.
  std::uint64_t file_bytes() const { return file_bytes_; }
  /// It may turn out to be an archive when there is more of it.
  bool undecided() const { return undecided_; }
  FileKey key() const { return key_; }
  const Fingerprint& fingerprint() const { return fingerprint_; }

 private:
  Status recognise();
  Status verify_archive();
  Result<std::size_t> read_again(FileOffset offset, std::span<std::byte> buffer);
  Result<std::size_t> read_beginning(std::span<std::byte> head);
  Status skip_archive_to(FileOffset cursor, const ArchiveMark& mark);
  Result<FileOffset> skip_archive_to_end(std::uint64_t file_size);
  void grow_head(FileOffset sent, std::span<const std::byte> last);
  tl::unexpected<Error> failed(const Error& error) const;
  Status verify_head();
  Status verify_tail();
  tl::unexpected<Error> replaced(const char* why) const;

  std::string path_;
  FileKey key_;
  Fingerprint fingerprint_;
  UniqueFd fd_;
  WallTime settled_;  ///< when it was changed, of a file that is read to the end; 0: not known, or a moment ago
  OpenFiles* open_files_ = nullptr;
  StreamId counted_as_;
  std::vector<std::byte> tail_;      ///< the bytes behind tail_digest, as many as are known; none of a file at rest
  ArchiveBudget* budget_ = nullptr;  ///< it is an archive, or may be
  std::optional<ArchiveMark> mark_;  ///< of a former run
  std::unique_ptr<Archive> archive_;
  bool undecided_ = false;  ///< too short to tell whether it is an archive
  bool head_verified_ = false;
  bool tail_verified_ = false;
  std::uint64_t file_bytes_ = 0;
};

/// Of what `path` leads to (links followed), if that is a regular file.
Result<FileStatus> status_of(const std::string& path);
Result<FileStatus> status_of(int fd);
Result<FileKey> key_of(const std::string& path);
/// The entries of `directory` that are these files, whatever their names; of several names of one file the first.
std::map<FileKey, std::string> find_in_directory(const std::filesystem::path& directory, const std::set<FileKey>& keys);

}  // namespace fantail
