#include "consumer/output_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "common/base/log.h"
#include "consumer/rotation.h"

namespace fantail {
namespace {

constexpr std::size_t kDirectBytes = 16 * 1024;  // runs of this size skip the buffer when it is empty

}  // namespace

Status OutputFile::open_descriptor(std::set<std::string>& directories) {
  std::error_code ec;
  const std::filesystem::path parent = directory_of(path_);
  for (auto made = parent; !made.empty() && !std::filesystem::exists(made, ec); made = made.parent_path()) {
    directories.insert(directory_of(made.string()));
  }
  std::filesystem::create_directories(parent, ec);  // what fails here fails at open, too
  UniqueFd fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!fd) return fail_errno(errno, "output " + path_);
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, "output " + path_);
  regular_ = S_ISREG(status.st_mode);
  // Two writers would cut off each other's lines.
  if (regular_ && ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return fail(ErrorCode::kBusy, "output " + path_ + ": another consumer writes to it; give each its own file");
  }
  fd_ = std::move(fd);
  length_ = static_cast<std::uint64_t>(status.st_size);
  if (length_ == 0) directories.insert(directory_of(file_of(path_)));
  return {};
}

Status OutputFile::open(std::optional<std::uint64_t> committed, WallTime now, std::set<std::string>& directories) {
  if (auto ok = open_descriptor(directories); !ok) return ok;
  if (committed && length_ > *committed) {
    if (::ftruncate(fd_.get(), static_cast<off_t>(*committed)) != 0) {
      const int error = errno;
      close();
      return fail_errno(error, "output " + path_);
    }
    length_ = *committed;
  } else if (committed && length_ == 0 && *committed > 0) {
    log::warn("an output is gone, beginning another; what came after its last commit may be in both",
              {{"path", path_}, {"bytes", *committed}});
  } else if (committed && length_ < *committed) {
    log::warn("an output is shorter than it was, going on at its end", {{"path", path_}, {"bytes", length_}});
  }
  if (frames_ == nullptr || length_ == 0 || committed == length_) return {};
  const std::string file = file_of(path_);
  const std::string aside = rotated_name(file, now);
  close();
  if (::rename(file.c_str(), aside.c_str()) != 0) return fail_errno(errno, "cannot rename " + file);
  log::warn("a compressed output may end anywhere, it was renamed", {{"path", path_}, {"to", aside}});
  return open_descriptor(directories);
}

void OutputFile::close() {
  fd_.reset();
  length_ = 0;
}

UniqueFd OutputFile::duplicate() const { return UniqueFd(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0)); }

/// Returns how much was written, which is less than all of it only on error.
std::size_t OutputFile::put(std::string_view bytes, int& error) {
  error = 0;
  struct stat status {};
  if (regular_ && ::fstat(fd_.get(), &status) == 0 && static_cast<std::uint64_t>(status.st_size) < length_) {
    length_ = static_cast<std::uint64_t>(status.st_size);
    log::warn("an output is shorter than it was, going on at its end", {{"path", path_}, {"bytes", length_}});
  }
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::pwrite(fd_.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(length_));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      error = errno;
      break;
    }
    done += static_cast<std::size_t>(n);
    length_ += static_cast<std::uint64_t>(n);
  }
  return done;
}

void OutputFile::append(std::string_view lines) {
  if (frames_ == nullptr && buffer_.empty() && lines.size() >= kDirectBytes) {
    int error = 0;
    lines.remove_prefix(put(lines, error));  // what is left waits; write_out() tells the error
  }
  buffer_ += lines;
}

/// One frame of all lines that wait.
Status OutputFile::put_frame() {
  const auto frame = frames_->compress(buffer_);
  if (!frame) return tl::unexpected(frame.error());
  int error = 0;
  unwritten_ = frame->substr(put(*frame, error));
  buffer_.clear();
  if (error != 0) return fail_errno(error, "output " + path_);
  return {};
}

Status OutputFile::write_out() {
  std::string& ready = frames_ == nullptr ? buffer_ : unwritten_;
  if (!ready.empty()) {
    int error = 0;
    ready.erase(0, put(ready, error));
    if (error != 0) return fail_errno(error, "output " + path_);
  }
  if (frames_ == nullptr || buffer_.size() < kBufferBytes) return {};
  return put_frame();
}

Status OutputFile::finish_frame() {
  if (auto ok = write_out(); !ok || buffer_.empty()) return ok;
  return put_frame();
}

OutputFile::Place OutputFile::place() const {
  struct stat ours {};
  struct stat there {};
  if (!regular_ || ::fstat(fd_.get(), &ours) != 0) return Place::kHere;
  if (ours.st_nlink == 0) return Place::kDeleted;
  if (::stat(path_.c_str(), &there) != 0) return errno == ENOENT ? Place::kMoved : Place::kHere;
  return ours.st_dev == there.st_dev && ours.st_ino == there.st_ino ? Place::kHere : Place::kMoved;
}

Status OutputFile::copy_from(const OutputFile& other, std::uint64_t from) {
  const std::uint64_t begin = length_;
  std::string piece(kBufferBytes, '\0');
  while (from < other.length_) {
    const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), other.length_ - from));
    const ssize_t n = ::pread(other.fd_.get(), piece.data(), wanted, static_cast<off_t>(from));
    int error = n < 0 ? errno : 0;
    if (n > 0) (void)put(std::string_view(piece).substr(0, static_cast<std::size_t>(n)), error);
    if (error == EINTR) continue;
    if (error != 0 || n == 0) {
      (void)!::ftruncate(fd_.get(), static_cast<off_t>(begin));
      length_ = begin;
      return fail_errno(error != 0 ? error : EIO, "output " + path_);
    }
    from += static_cast<std::uint64_t>(n);
  }
  return {};
}

}  // namespace fantail
