#include "producer/archive_content.h"

#include <algorithm>
#include <array>
#include <utility>

#include "producer/file_content.h"

namespace fantail {
namespace {

constexpr int kMostFailures = 3;  // of an archive that changes while it is read, or that the disk does not give

}  // namespace

std::unique_ptr<ArchiveContent> ArchiveContent::open(const std::string& path, FileKey key, ArchiveBudget& budget) {
  auto file = FileContent::open(path, key);
  std::array<std::byte, kMagicBytes> space{};
  const auto n = file ? file->read_at(0, space) : Result<std::size_t>(0);
  const auto format = archive_format(std::span(space).first(n.value_or(0)));
  if (!format) return nullptr;
  std::unique_ptr<ArchiveContent> content(new ArchiveContent(path, key, *format, budget));
  if (!content->begin()) return nullptr;
  content->archive_.reset();
  content->fd_.reset();
  return content;
}

/// Opens it, and has its beginning then.
bool ArchiveContent::begin() {
  auto file = FileContent::open(path_, key_);
  if (!file) return false;
  fd_ = file->take_fd();
  const auto status = status_of(fd_.get());
  if (!status) return false;
  archive_ = std::make_unique<Archive>(format_, budget_, FileOffset{}, ArchiveMark{});
  const auto head = archive_->head(fd_.get());
  if (!head) return false;
  status_ = *status;
  head_.assign(head->begin(), head->end());
  tails_.clear();
  return true;
}

void ArchiveContent::is_at(const std::string& path) {
  path_ = path;
  if (under_way_) return;
  const auto status = status_of(path_);
  if (!status || (status->key == key_ && status->size == status_.size && status->modified == status_.modified)) return;
  through_ = false;
  failures_ = 0;
  head_.clear();
  size_ = 0;
  if (!begin()) return;
  archive_.reset();
  fd_.reset();
}

bool ArchiveContent::tells(std::span<const std::uint64_t> ends) {
  const auto told = [&](std::uint64_t end) { return end == 0 || end > size_ || tails_.contains(end); };
  if (ends.empty() ? through_ || !head_.empty() : through_ && std::ranges::all_of(ends, told)) return true;
  for (const std::uint64_t end : ends) {
    const bool passed = archive_ && end <= archive_->end().raw && !ends_.contains(end);
    ends_.insert(end);
    if (passed) archive_.reset();
  }
  through_ = false;
  under_way_ = true;
  return false;
}

std::uint64_t ArchiveContent::size() const { return through_ ? size_ : head_.size(); }

Result<std::size_t> ArchiveContent::read_at(std::uint64_t offset, std::span<std::byte> buffer) {
  const std::uint64_t end = offset + buffer.size();
  if (const auto tail = tails_.find(end); tail != tails_.end() && tail->second.size() >= buffer.size()) {
    std::copy(tail->second.end() - static_cast<std::ptrdiff_t>(buffer.size()), tail->second.end(), buffer.begin());
    return buffer.size();
  }
  if (offset > 0 && end > head_.size()) return fail(ErrorCode::kWouldBlock, path_ + ": not asked for before");
  const auto n = std::min<std::uint64_t>(buffer.size(), head_.size());
  std::copy_n(head_.begin() + static_cast<std::ptrdiff_t>(offset), n, buffer.begin());
  return n;
}

ArchiveContent::Step ArchiveContent::go_on() {
  if (!archive_ && !begin()) return failed();
  const FileOffset before = archive_->end();
  const auto tail = archive_->tail();
  const Bytes last(tail.begin(), tail.end());
  if (!archive_->go_on(fd_.get())) return failed();
  keep_tails(before, last);
  const auto status = status_of(fd_.get());
  if (!status) return failed();
  status_ = *status;
  const Archive::Rest rest = archive_->rest(status_.size);
  if (rest == Archive::Rest::kMore) return Step::kMore;
  if (rest != Archive::Rest::kNone && is_being_written(fd_.get(), wall_now())) {
    if (rest == Archive::Rest::kDamaged) archive_.reset();
    return Step::kWaits;
  }
  return stop(archive_->end().raw);
}

/// Of the ends in the piece that was read just now. `last`: the bytes before it.
void ArchiveContent::keep_tails(FileOffset before, const Bytes& last) {
  for (auto at = ends_.upper_bound(before.raw); at != ends_.end() && *at <= archive_->end().raw; ++at) {
    Bytes tail(std::min<std::uint64_t>(*at, Archive::kTailBytes));
    const std::uint64_t begin = *at - tail.size();
    const std::uint64_t from_last = begin < before.raw ? before.raw - begin : 0;
    if (from_last > last.size()) continue;
    std::copy(last.end() - static_cast<std::ptrdiff_t>(from_last), last.end(), tail.begin());
    const auto rest = std::span(tail).subspan(from_last);
    const auto n = archive_->read(fd_.get(), {begin + from_last}, rest);
    if (n && *n == rest.size()) tails_[*at] = std::move(tail);
  }
}

/// So much is in it.
ArchiveContent::Step ArchiveContent::stop(std::uint64_t size) {
  size_ = size;
  end_.reset();
  if (archive_) {
    const auto tail = archive_->tail();
    tails_[size] = Bytes(tail.begin(), tail.end());
    if (const auto head = archive_->head(fd_.get())) head_.assign(head->begin(), head->end());
    if (const ArchiveMark& mark = archive_->mark({size}); mark.offset.raw == size) end_ = mark;
  }
  archive_.reset();
  fd_.reset();
  through_ = true;
  under_way_ = false;
  return Step::kThrough;
}

ArchiveContent::Step ArchiveContent::failed() {
  archive_.reset();
  if (++failures_ < kMostFailures) return Step::kWaits;
  head_.clear();
  tails_.clear();
  return stop(0);
}

ArchiveMark ArchiveContent::mark(FileOffset before) const {
  return end_ && end_->offset <= before ? *end_ : ArchiveMark{};
}

}  // namespace fantail
