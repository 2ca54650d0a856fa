#include "pipeline/line_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <span>

#include "common/base/digest.h"

namespace fantail::pipeline {
namespace {

constexpr std::size_t kPiece = 1024 * 1024;
constexpr std::size_t kWindow = 256 * 1024;
constexpr std::uint64_t kFingerprintedWhole = 1024 * 1024 * 1024;

}  // namespace

Result<LineSource> LineSource::open(std::filesystem::path path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return fail_errno(errno, "cannot read " + path.string());
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, "cannot read " + path.string());
  if (!S_ISREG(status.st_mode)) {
    return fail(ErrorCode::kInvalid, path.string() + ": no regular file; jobs may be read twice, put them into one");
  }
  return LineSource(std::move(path), std::move(fd), static_cast<std::uint64_t>(status.st_size));
}

Result<LineSource> LineSource::copy_of(int fd, const std::string& name) {
  UniqueFd copy(::open(std::filesystem::temp_directory_path().c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600));
  if (!copy) return fail_errno(errno, "a temporary file");
  std::string buffer(kWindow, '\0');
  std::uint64_t bytes = 0;
  for (;;) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "cannot read " + name);
    if (n == 0) break;
    for (ssize_t done = 0; done < n;) {
      const ssize_t m = ::write(copy.get(), buffer.data() + done, static_cast<std::size_t>(n - done));
      if (m < 0 && errno == EINTR) continue;
      if (m <= 0) return fail_errno(m < 0 ? errno : EIO, "cannot keep " + name + " in a temporary file");
      done += m;
    }
    bytes += static_cast<std::uint64_t>(n);
  }
  return LineSource(name, std::move(copy), bytes);
}

/// At most so many bytes, fewer at the end of what the file was when it was opened.
Result<std::string> LineSource::read(std::uint64_t offset, std::size_t most) const {
  std::string out(std::min<std::uint64_t>(most, bytes_ - std::min(bytes_, offset)), '\0');
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = ::pread(fd_.get(), out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "cannot read " + path_.string());
    if (n == 0) {
      return fail(ErrorCode::kInvalid,
                  path_.string() + ": became shorter while its lines were jobs; it must not change");
    }
    done += static_cast<std::size_t>(n);
  }
  return out;
}

Result<std::uint64_t> LineSource::look_on() {
  if (complete_) return 0;
  const auto piece = read(looked_, kPiece);
  if (!piece) return tl::unexpected(piece.error());
  const std::uint64_t before = lines_;
  for (auto end = piece->find('\n'); end != std::string::npos; end = piece->find('\n', end + 1)) {
    ++lines_;
    if (lines_ % kMarkEvery == 0) marks_.push_back(looked_ + end + 1);
  }
  if (!piece->empty()) in_line_ = piece->back() != '\n';
  looked_ += piece->size();
  if (looked_ == bytes_) {
    complete_ = true;
    if (in_line_) ++lines_;  // the last one needs no end
  }
  return lines_ - before;
}

Status LineSource::fill(std::uint64_t offset) {
  auto piece = read(offset, kWindow);
  if (!piece) return tl::unexpected(piece.error());
  window_ = std::move(*piece);
  window_offset_ = offset;
  return {};
}

Result<std::string> LineSource::job(std::uint64_t number) {
  if (number == 0 || number > lines_) {
    return fail(ErrorCode::kInvalid, path_.string() + ": has no line " + std::to_string(number));
  }
  if (number != next_number_) {
    const std::uint64_t mark = (number - 1) / kMarkEvery;
    // On from the last one, if that is nearer.
    if (number < next_number_ || next_number_ <= mark * kMarkEvery) {
      next_number_ = mark * kMarkEvery + 1;
      next_offset_ = marks_.at(mark);
    }
  }
  std::string out;
  const auto refuse = [&](Error error) {
    next_number_ = 1;  // not from the middle of a line
    next_offset_ = 0;
    return tl::unexpected(std::move(error));
  };
  for (;;) {
    if (next_offset_ < window_offset_ || next_offset_ >= window_offset_ + window_.size()) {
      if (next_offset_ >= bytes_) break;  // the last line, without an end
      if (auto ok = fill(next_offset_); !ok) return refuse(ok.error());
    }
    const std::size_t from = next_offset_ - window_offset_;
    const std::size_t end = window_.find('\n', from);
    const std::size_t upto = end == std::string::npos ? window_.size() : end;
    if (next_number_ == number) {
      if (out.size() + (upto - from) > kMaxJobBytes) {
        return refuse(
            {ErrorCode::kInvalid, path_.string() + ": line " + std::to_string(number) + " is longer than 1 MiB"});
      }
      out.append(window_, from, upto - from);
    }
    next_offset_ = window_offset_ + upto;
    if (end == std::string::npos) continue;
    ++next_offset_;
    if (next_number_++ == number) return out;
  }
  next_number_ = 1;
  next_offset_ = 0;
  return out;
}

Result<std::string> LineSource::fingerprint() const {
  std::uint64_t of_all = bytes_;
  const auto add = [&](std::uint64_t from, std::uint64_t to) -> Status {
    for (std::uint64_t at = from; at < to; at += kPiece) {
      const auto piece = read(at, kPiece);
      if (!piece) return tl::unexpected(piece.error());
      of_all = digest({std::as_bytes(std::span(&of_all, 1)), as_bytes(*piece)});
    }
    return {};
  };
  const bool whole = bytes_ <= kFingerprintedWhole;
  if (auto ok = add(0, whole ? bytes_ : kPiece); !ok) return tl::unexpected(ok.error());
  if (!whole) {
    if (auto ok = add(bytes_ - kPiece, bytes_); !ok) return tl::unexpected(ok.error());
  }
  return std::to_string(bytes_) + "-" + std::to_string(of_all);
}

}  // namespace fantail::pipeline
