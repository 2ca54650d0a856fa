#include "producer/tailed_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>

#include "common/base/digest.h"
#include "common/base/signals.h"
#include "producer/pread_fully.h"

namespace fantail {
namespace {

constexpr unsigned long kReservedDescriptors = 16;  // of a file that does not count: for connections and databases
constexpr Duration kSettledAfter = 2s;

using Head = std::array<std::byte, Fingerprint::kHeadBytes>;

FileKey key_from(const struct stat& status) { return {status.st_dev, status.st_ino}; }

WallTime time_from(const timespec& time) { return {std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec}; }

FileStatus status_from(const struct stat& status) {
  return {key_from(status), static_cast<std::uint64_t>(status.st_size), time_from(status.st_mtim),
          time_from(status.st_ctim)};
}

}  // namespace

Result<FileStatus> status_of(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return fail_errno(errno, path);
  if (!S_ISREG(status.st_mode)) return fail(ErrorCode::kInvalid, path + ": not a regular file");
  return status_from(status);
}

Result<FileStatus> status_of(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, "fstat");
  return status_from(status);
}

Result<FileKey> key_of(const std::string& path) {
  const auto status = status_of(path);
  if (!status) return tl::unexpected(status.error());
  return status->key;
}

std::map<FileKey, std::string> find_in_directory(const std::filesystem::path& directory,
                                                 const std::set<FileKey>& keys) {
  std::map<FileKey, std::string> out;
  const std::unique_ptr<DIR, int (*)(DIR*)> handle(::opendir(directory.c_str()), ::closedir);
  if (!handle) return out;
  std::set<std::uint64_t> inodes;
  for (const FileKey& key : keys) inodes.insert(key.inode);
  while (const dirent* entry = ::readdir(handle.get())) {
    if (!inodes.contains(entry->d_ino)) continue;
    const std::string path = (directory / entry->d_name).string();
    const auto found = key_of(path);
    if (found && keys.contains(*found)) out.emplace(*found, path);
  }
  return out;
}

wire::FileIdentity identity_of(FileKey key, const Fingerprint& fingerprint) {
  return {key.device, key.inode, fingerprint.head_length, fingerprint.head_digest};
}

TailedFile::TailedFile(std::string path, FileKey key, Fingerprint fingerprint)
    : path_(std::move(path)), key_(key), fingerprint_(fingerprint) {}

void TailedFile::move_to(std::string path, FileKey key, ArchiveBudget* archives, const ArchiveMark& mark) {
  close();
  path_ = std::move(path);
  key_ = key;
  archive_.reset();
  budget_ = archives;
  mark_.reset();
  if (archives != nullptr) mark_ = mark;
  undecided_ = head_verified_ = tail_verified_ = false;
  settled_ = {};
}

tl::unexpected<Error> TailedFile::replaced(const char* why) const {
  return fail(ErrorCode::kReplaced, path_ + ": " + why);
}

Status TailedFile::open() {
  if (fd_) return {};
  const auto none_left = [&] { return fail(ErrorCode::kBusy, path_ + ": " + std::generic_category().message(EMFILE)); };
  if (open_files_ != nullptr && !open_files_->may_open()) return none_left();
  UniqueFd fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd && (errno == EMFILE || errno == ENFILE)) return none_left();
  if (!fd) return fail_errno(errno, path_);
  if (open_files_ == nullptr && static_cast<unsigned long>(fd.get()) + kReservedDescriptors >= descriptor_limit()) {
    return none_left();
  }
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, path_);
  // Ours may be there still, under another name.
  if (key_from(status) != key_) return fail(ErrorCode::kNotFound, path_ + ": another file is there now");
  file_bytes_ = static_cast<std::uint64_t>(status.st_size);
  fd_ = std::move(fd);
  if (open_files_ != nullptr) open_files_->opened(counted_as_);
  return {};
}

void TailedFile::close() {
  if (archive_) {
    archive_->release();
  } else {
    tail_ = {};  // comes again with the next bytes
  }
  if (fd_ && open_files_ != nullptr) open_files_->closed(counted_as_);
  fd_.reset();
}

void TailedFile::rest() {
  if (fd_ && !archive_) (void)look(false);  // an error shows again when it is looked at next
  close();
}

void TailedFile::keep_open(UniqueFd fd) {
  close();
  if (!fd) return;
  fd_ = std::move(fd);
  if (open_files_ != nullptr) open_files_->opened(counted_as_);
}

Result<std::size_t> TailedFile::read_at(FileOffset offset, std::span<std::byte> buffer) {
  if (auto ok = open(); !ok) return tl::unexpected(ok.error());
  if (auto ok = recognise(); !ok) return tl::unexpected(ok.error());
  if (archive_) return read_again(offset, buffer);
  if (offset != fingerprint_.cursor) {
    const auto n = pread_fully(fd_.get(), buffer, offset.raw);
    if (!n) return fail(n.error().code, path_ + ": " + n.error().context);
    if (auto ok = verify_tail(); !ok) return tl::unexpected(ok.error());
    if (auto ok = verify_head(); !ok) return tl::unexpected(ok.error());
    return *n;
  }
  // The bytes before the cursor come with the same call as those behind it, so both are of one incarnation; the head is
  // looked at afterwards, so that a file rewritten in between is noticed too.
  const std::size_t tail_length = std::min<std::uint64_t>(offset.raw, Fingerprint::kTailBytes);
  std::array<std::byte, Fingerprint::kTailBytes> tail{};
  const std::array<iovec, 2> parts = {iovec{tail.data(), tail_length}, iovec{buffer.data(), buffer.size()}};
  ssize_t n = 0;
  do {
    n = ::preadv(fd_.get(), parts.data(), 2, static_cast<off_t>(offset.raw - tail_length));
  } while (n < 0 && errno == EINTR);
  if (n < 0) return fail_errno(errno, path_);
  if (static_cast<std::size_t>(n) < tail_length) return replaced("shorter than what was read of it");
  if (tail_length > 0 && digest(std::span(tail).first(tail_length)) != fingerprint_.tail_digest) {
    return replaced("the bytes before the cursor changed");
  }
  tail_.assign(tail.begin(), tail.begin() + static_cast<std::ptrdiff_t>(tail_length));
  if (auto ok = verify_head(); !ok) return tl::unexpected(ok.error());
  return static_cast<std::size_t>(n) - tail_length;
}

Status TailedFile::verify_tail() {
  const std::size_t length = std::min<std::uint64_t>(fingerprint_.cursor.raw, Fingerprint::kTailBytes);
  if (length == 0) return {};
  tail_.clear();
  std::array<std::byte, Fingerprint::kTailBytes> tail{};
  const auto space = std::span(tail).first(length);
  const auto n = pread_fully(fd_.get(), space, fingerprint_.cursor.raw - length);
  if (!n) return fail(n.error().code, path_ + ": " + n.error().context);
  if (*n < length) return replaced("shorter than what was read of it");
  if (digest(space) != fingerprint_.tail_digest) return replaced("the bytes before the cursor changed");
  tail_.assign(space.begin(), space.end());
  return {};
}

Status TailedFile::verify_head() {
  if (fingerprint_.head_length == 0) return {};
  Head head;
  const auto space = std::span(head).first(fingerprint_.head_length);
  const auto n = read_beginning(space);
  if (!n) return tl::unexpected(n.error());
  if (*n < space.size() || digest(space) != fingerprint_.head_digest) return replaced("its beginning changed");
  return {};
}

void TailedFile::mark_sent(FileOffset sent, std::span<const std::byte> last) {
  // The tail: the last 64 bytes of what was known before and what came now.
  const std::size_t length = std::min<std::uint64_t>(sent.raw, Fingerprint::kTailBytes);
  if (last.size() >= length) {
    tail_.assign(last.end() - static_cast<std::ptrdiff_t>(length), last.end());
  } else {
    const std::size_t keep = length - last.size();
    if (keep > tail_.size()) {  // of an archive that was read on from a mark
      tail_.clear();
      fingerprint_.tail_digest = 0;
      fingerprint_.cursor = sent;
      return grow_head(sent, last);
    }
    tail_.erase(tail_.begin(), tail_.end() - static_cast<std::ptrdiff_t>(keep));
    tail_.insert(tail_.end(), last.begin(), last.end());
  }
  fingerprint_.tail_digest = digest(tail_);
  fingerprint_.cursor = sent;
  grow_head(sent, last);
}

/// Its old part was verified a moment ago; if it fails here the next read finds out.
void TailedFile::grow_head(FileOffset sent, std::span<const std::byte> last) {
  if (fingerprint_.head_length == Fingerprint::kHeadBytes) return;
  Head head;
  const std::size_t grown = std::min<std::uint64_t>(sent.raw, Fingerprint::kHeadBytes);
  if (grown <= fingerprint_.head_length) return;
  if (sent.raw == last.size()) {
    std::copy_n(last.begin(), grown, head.begin());
  } else if (const auto n = read_beginning(std::span(head).first(grown)); !n || *n < grown) {
    return;
  } else if (fingerprint_.head_length > 0 &&
             digest(std::span(head).first(fingerprint_.head_length)) != fingerprint_.head_digest) {
    return;
  }
  fingerprint_.head_length = static_cast<std::uint32_t>(grown);
  fingerprint_.head_digest = digest(std::span(head).first(grown));
}

Status TailedFile::learn_head() {
  if (auto ok = open(); !ok) return tl::unexpected(ok.error());
  if (auto ok = recognise(); !ok) return ok;
  if (undecided_) return {};
  Head head;
  const auto n = read_beginning(head);
  if (!n) return tl::unexpected(n.error());
  fingerprint_.head_length = static_cast<std::uint32_t>(*n);
  fingerprint_.head_digest = *n > 0 ? digest(std::span(head).first(*n)) : 0;
  return {};
}

Status TailedFile::skip_to(FileOffset cursor) {
  if (auto ok = open(); !ok) return tl::unexpected(ok.error());
  if (auto ok = recognise(); !ok) return ok;
  if (archive_) return skip_archive_to(cursor, {});
  const std::size_t length = std::min<std::uint64_t>(cursor.raw, Fingerprint::kTailBytes);
  std::array<std::byte, Fingerprint::kTailBytes> tail{};
  const auto n = pread_fully(fd_.get(), std::span(tail).first(length), cursor.raw - length);
  if (!n) return fail(n.error().code, path_ + ": " + n.error().context);
  if (*n < length) return replaced("shorter than what was read of it");
  if (auto ok = verify_head(); !ok) return ok;
  mark_sent(cursor, std::span(tail).first(length));
  return {};
}

Result<FileOffset> TailedFile::skip_to_end() {
  if (auto ok = open(); !ok) return tl::unexpected(ok.error());
  struct stat status {};
  if (::fstat(fd_.get(), &status) != 0) return fail_errno(errno, path_);
  const FileOffset end{static_cast<std::uint64_t>(status.st_size)};
  if (auto ok = recognise(); !ok) return tl::unexpected(ok.error());
  if (archive_) return skip_archive_to_end(end.raw);
  if (auto ok = skip_to(end); !ok) return tl::unexpected(ok.error());
  return end;
}

Writers writers_of(int fd) {
  // The kernel grants a lease for reading only while nobody has the file open for writing (fcntl(2)).
  if (::fcntl(fd, F_SETLEASE, F_RDLCK) == 0) {
    ::fcntl(fd, F_SETLEASE, F_UNLCK);
    return Writers::kNone;
  }
  return errno == EAGAIN || errno == EBUSY ? Writers::kSome : Writers::kUnknown;
}

Result<TailedFile::Look> TailedFile::look(bool verify) {
  if (auto ok = open(); !ok) return tl::unexpected(ok.error());
  struct stat status {};
  if (::fstat(fd_.get(), &status) != 0) return fail_errno(errno, path_);
  const auto size = static_cast<std::uint64_t>(status.st_size);
  file_bytes_ = size;
  if (auto ok = recognise(); !ok) return tl::unexpected(ok.error());
  if (undecided_) return Look{0, status.st_nlink};
  if (archive_) {
    if (auto ok = verify_archive(); !ok) return tl::unexpected(ok.error());
    return Look{archive_->end().raw, status.st_nlink};
  }
  if (size < fingerprint_.cursor.raw) return replaced("shorter than what was read of it");
  if (verify || size == fingerprint_.cursor.raw) {
    if (auto ok = verify_tail(); !ok) return tl::unexpected(ok.error());
    if (auto ok = verify_head(); !ok) return tl::unexpected(ok.error());
  }
  // A change within the same tick of the clock would not show in the time.
  const WallTime changed = time_from(status.st_ctim);
  const bool settled = size == fingerprint_.cursor.raw && wall_now().ns - changed.ns > kSettledAfter.count();
  settled_ = settled ? changed : WallTime{};
  return Look{size, status.st_nlink};
}

bool TailedFile::unchanged_since_look(const FileStatus& status) const {
  return !fd_ && settled_.ns != 0 && status.key == key_ && status.size == fingerprint_.cursor.raw &&
         status.changed == settled_;
}

}  // namespace fantail
