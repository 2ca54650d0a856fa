// The part of TailedFile that reads archives: whether it is one, its bytes, and how far a former run came.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "common/base/digest.h"
#include "producer/tailed_file.h"

namespace fantail {
namespace {

constexpr std::chrono::seconds kQuiet = 5s;          // since the last change, with nobody who has it open for writing
constexpr std::chrono::seconds kQuietUnknown = 60s;  // where that cannot be known

}  // namespace

tl::unexpected<Error> TailedFile::failed(const Error& error) const {
  return fail(error.code, path_ + ": " + error.context);
}

void TailedFile::read_archive(ArchiveBudget& budget, const std::optional<ArchiveMark>& mark) {
  budget_ = &budget;
  mark_ = mark;
}

/// Finds out whether it is an archive, if that is not known yet.
Status TailedFile::recognise() {
  if (budget_ == nullptr || archive_) return {};
  std::array<std::byte, kMagicBytes> space{};
  const ssize_t n = ::pread(fd_.get(), space.data(), space.size(), 0);
  if (n < 0) return fail_errno(errno, path_);
  const auto beginning = std::span(space).first(static_cast<std::size_t>(n));
  if (const auto format = archive_format(beginning)) {
    // The cursor may have been set back.
    const FileOffset end = std::max(fingerprint_.cursor, mark_ ? mark_->offset : FileOffset{});
    ArchiveMark mark = mark_.value_or(ArchiveMark{});
    archive_ = std::make_unique<Archive>(*format, *budget_, end, mark);
    undecided_ = false;
    return {};
  }
  if (mark_) return replaced("no archive any more");
  undecided_ = may_become_archive(beginning) && being_written(wall_now());
  if (!undecided_ && n > 0) budget_ = nullptr;  // an ordinary file
  return {};
}

Status TailedFile::verify_archive() {
  if (auto ok = archive_->verify(fd_.get()); !ok) return failed(ok.error());
  if (head_verified_) return {};
  if (auto ok = verify_head(); !ok) return ok;
  head_verified_ = true;
  return {};
}

Result<std::size_t> TailedFile::read_again(FileOffset offset, std::span<std::byte> buffer) {
  const auto n = archive_->read(fd_.get(), offset, buffer);
  if (!n) return failed(n.error());
  return n;
}

Result<std::size_t> TailedFile::read_on() {
  if (auto ok = open(); !ok) return tl::unexpected(ok.error());
  if (!archive_) return 0;
  const auto n = archive_->go_on(fd_.get());
  if (!n) return failed(n.error());
  // Come to where a former run was: the bytes before have to be those.
  if (!tail_verified_ && archive_->arrived()) {
    tail_verified_ = true;
    const auto tail = archive_->tail();
    if (archive_->end() == fingerprint_.cursor && !tail.empty()) {
      if (fingerprint_.tail_digest != 0 && digest(tail) != fingerprint_.tail_digest) {
        return replaced("the bytes before the cursor changed");
      }
      tail_.assign(tail.begin(), tail.end());
    }
  }
  return n;
}

/// The first bytes of the stream.
Result<std::size_t> TailedFile::read_beginning(std::span<std::byte> head) {
  if (archive_) {
    const auto beginning = archive_->head(fd_.get());
    if (!beginning) return failed(beginning.error());
    const std::size_t n = std::min(head.size(), beginning->size());
    std::copy_n(beginning->begin(), n, head.begin());
    return n;
  }
  std::size_t done = 0;
  while (done < head.size()) {
    const ssize_t n = ::pread(fd_.get(), head.data() + done, head.size() - done, static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, path_ + ": read");
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

std::optional<Archive::Rest> TailedFile::archive_rest() const {
  if (undecided_) return Archive::Rest::kIncomplete;
  if (!archive_) return std::nullopt;
  return archive_->rest(file_bytes_);
}

std::optional<FileOffset> TailedFile::decompressed_to() const {
  if (!archive_) return std::nullopt;
  return archive_->end();
}

std::optional<ArchiveMark> TailedFile::archive_mark() const {
  if (archive_) return archive_->mark(fingerprint_.cursor);
  return mark_;
}

Error TailedFile::archive_error() const {
  if (archive_ && archive_->damage()) return *archive_->damage();
  return {ErrorCode::kTruncated, "the archive ends within a member, at byte " + std::to_string(file_bytes_)};
}

Result<ArchiveMark> TailedFile::verdict_mark() const {
  return Archive::mark_at(fd_.get(), file_bytes_, fingerprint_.cursor, archive_ ? archive_->origin() : 0);
}

Status TailedFile::skip_archive_to(FileOffset cursor, const ArchiveMark& mark) {
  if (auto ok = verify_head(); !ok) return ok;
  if (archive_ && archive_->arrived() && cursor <= archive_->end() && mark.compressed == 0) {
    // It was read further: all before is read again.
    fingerprint_.cursor = cursor;
    fingerprint_.tail_digest = 0;
    tail_.clear();
    return {};
  }
  mark_ = mark;
  archive_.reset();
  fingerprint_.cursor = cursor;
  fingerprint_.tail_digest = 0;
  return recognise();
}

/// How many bytes it has is not known, so the stream begins at 0 with what may come behind them.
Result<FileOffset> TailedFile::skip_archive_to_end(std::uint64_t file_size) {
  // Within a member nobody can begin, so what is still being written is read.
  if (being_written(wall_now())) {
    if (auto ok = learn_head(); !ok) return tl::unexpected(ok.error());
    return FileOffset{};
  }
  const auto mark = Archive::mark_at(fd_.get(), file_size, {}, file_size);
  if (!mark) return failed(mark.error());
  if (auto ok = skip_archive_to({}, *mark); !ok) return tl::unexpected(ok.error());
  return FileOffset{};
}

bool is_being_written(int fd, WallTime now) {
  struct stat status {};
  if (fd < 0 || ::fstat(fd, &status) != 0) return false;
  const Writers who = writers_of(fd);
  if (who == Writers::kSome) return true;
  const auto changed = std::chrono::seconds(status.st_mtim.tv_sec) + std::chrono::nanoseconds(status.st_mtim.tv_nsec);
  // A clock that was set back must not make it wait for ever.
  const auto since = std::chrono::abs(std::chrono::nanoseconds(now.ns) - changed);
  return since < (who == Writers::kNone ? kQuiet : kQuietUnknown);
}

}  // namespace fantail
