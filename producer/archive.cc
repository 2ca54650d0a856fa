#include "producer/archive.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/base/digest.h"
#include "producer/pread_fully.h"

namespace fantail {
namespace {

constexpr std::size_t kInputBytes = 64 * 1024;
constexpr std::size_t kInputPerCall = 1024 * 1024;  // of members that hold nothing there may be any number
constexpr std::size_t kScratchBytes = 64 * 1024;
constexpr std::uint64_t kFirstSpacing = 1024 * 1024;
constexpr std::size_t kPointBytes = 1536 * 1024;  // of one archive: 34 points of gzip
constexpr std::size_t kBoundaryPointBytes = 128;
constexpr std::size_t kReadersAgain = 4;
constexpr std::uint64_t kGivenUpAfterCalls = 10'000;  // a reader on its way to what nobody asks for any more

constexpr const char* kNotAsItWas = "it cannot be decompressed any more as it was";

tl::unexpected<Error> replaced(const char* why) { return fail(ErrorCode::kReplaced, why); }

}  // namespace

Archive::Archive(ArchiveFormat format, ArchiveBudget& budget, FileOffset end, const ArchiveMark& mark)
    : format_(format),
      budget_(budget),
      origin_(mark.origin),
      end_(end),
      arrived_(mark.offset == end),
      at_boundary_(arrived_),
      mark_(mark),
      latest_(mark),
      passed_(mark),
      spacing_(kFirstSpacing),
      file_tail_at_(mark.compressed),
      file_tail_digest_(mark.digest) {
  if (arrived_) compressed_end_ = mark.compressed;
  drained_ = arrived_;
}

Archive::~Archive() { budget_.forget(*this); }

Archive::Rest Archive::rest(std::uint64_t file_size) const {
  if (damage_) return Rest::kDamaged;
  if (!arrived_ || !drained_ || file_size != compressed_end_) return Rest::kMore;
  return at_boundary_ ? Rest::kNone : Rest::kIncomplete;
}

void Archive::release() {
  front_.reset();
  std::vector<Reader>().swap(again_);
  std::vector<std::byte>().swap(ahead_);
  points_.clear();
  point_bytes_ = 0;
  spacing_ = kFirstSpacing;
}

bool Archive::under_way() const {
  return (front_ && !drained_) ||
         std::any_of(again_.begin(), again_.end(), [](const Reader& reader) { return reader.seeking.has_value(); });
}

std::size_t Archive::memory_bytes() const {
  std::size_t bytes = ahead_.capacity() + point_bytes_;
  if (front_) bytes += front_->decompressor->memory_bytes();
  for (const Reader& reader : again_) bytes += reader.decompressor->memory_bytes() + reader.last.capacity();
  return bytes;
}

// ---- reading on

Result<std::size_t> Archive::go_on(int fd) {
  ++calls_;
  if (!front_) {
    front_ = reader_from(end_);
    if (front_->offset != end_) tail_known_ = 0;
  }
  if (front_->offset < end_) {
    std::optional<Error> damage;
    const auto n = seek(fd, *front_, end_, kSeekBytes, damage);
    if (!n) {
      front_.reset();
      return n;
    }
    if (auto ok = verify(fd); !ok) return tl::unexpected(ok.error());
    arrived_ = front_->offset == end_;
    if (damage) {
      damage_ = damage;
      front_.reset();
    } else if (arrived_) {
      if (auto ok = reached(fd, front_->compressed); !ok) return tl::unexpected(ok.error());
    }
    if (auto ok = keep_boundary(fd); !ok) return tl::unexpected(ok.error());
    account();
    return *n;
  }
  mark_ = latest_;
  ahead_.resize(kStepBytes);
  std::optional<Error> damage;
  const auto n = decompress(fd, *front_, ahead_, damage);
  ahead_.resize(n.value_or(0));
  if (!n) {
    front_.reset();  // it may be in the middle of what was not read
    return n;
  }
  if (auto ok = verify(fd); !ok) return tl::unexpected(ok.error());
  remember_tail(ahead_);
  end_ = front_->offset;
  at_boundary_ = front_->decompressor->at_boundary();
  drained_ = front_->drained;
  if (damage) {
    damage_ = damage;
    front_.reset();
  } else if (auto ok = reached(fd, front_->compressed); !ok) {
    return tl::unexpected(ok.error());
  }
  if (auto ok = keep_boundary(fd); !ok) return tl::unexpected(ok.error());
  account();
  return *n;
}

void Archive::remember_tail(std::span<const std::byte> bytes) {
  const std::size_t added = std::min(bytes.size(), kTailBytes);
  const std::size_t kept = std::min(tail_known_, kTailBytes - added);
  std::memmove(tail_.data(), tail_.data() + (tail_known_ - kept), kept);
  std::copy(bytes.end() - static_cast<std::ptrdiff_t>(added), bytes.end(),
            tail_.begin() + static_cast<std::ptrdiff_t>(kept));
  tail_known_ = kept + added;
}

std::span<const std::byte> Archive::tail() const {
  if (tail_known_ < std::min<std::uint64_t>(end_.raw, kTailBytes)) return {};
  return std::span(tail_).first(tail_known_);
}

// ---- reading again

Result<std::size_t> Archive::read(int fd, FileOffset offset, std::span<std::byte> buffer) {
  ++calls_;
  if (offset >= end_) return 0;
  const auto out = buffer.first(static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), end_ - offset)));
  const auto copy_from = [&](FileOffset begin, std::span<const std::byte> bytes) -> Result<std::size_t> {
    if (auto ok = verify(fd); !ok) return tl::unexpected(ok.error());
    const auto there = bytes.subspan(static_cast<std::size_t>(offset - begin));
    const std::size_t n = std::min(there.size(), out.size());
    std::copy_n(there.begin(), n, out.begin());
    return n;
  };
  const FileOffset ahead{end_.raw - ahead_.size()};
  if (offset >= ahead) {
    account();
    return copy_from(ahead, ahead_);
  }
  if (offset + out.size() <= FileOffset{head_.size()}) return copy_from({0}, head_);

  for (const Reader& reader : again_) {
    const FileOffset begin{reader.offset.raw - reader.last.size()};
    if (offset >= begin && offset < reader.offset) return copy_from(begin, reader.last);
  }

  Reader* reader = reader_for(offset);
  if (reader == nullptr) return fail(ErrorCode::kWouldBlock, "others are read at first");
  reader->used = calls_;
  if (reader->offset != offset) reader->last.clear();
  const auto drop = [&] { again_.erase(again_.begin() + (reader - again_.data())); };
  std::optional<Error> damage;
  if (const auto n = seek(fd, *reader, offset, kSeekBytes, damage); !n) {
    drop();
    return n;
  }
  if (reader->offset < offset) {
    reader->seeking = offset;
    account();
    return fail(ErrorCode::kWouldBlock, "not there yet");
  }
  reader->seeking.reset();
  const auto n = decompress(fd, *reader, out, damage);
  if (n && *n < out.size() && (damage || reader->drained)) {
    drop();
    return replaced(kNotAsItWas);
  }
  if (!n || damage) drop();
  if (!n) return n;
  if (auto ok = verify(fd); !ok) return tl::unexpected(ok.error());
  if (!damage) reader->last.assign(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(*n));
  account();
  if (*n == 0) return fail(ErrorCode::kWouldBlock, "nothing but empty members so far");
  return *n;
}

Result<std::span<const std::byte>> Archive::head(int fd) {
  if (head_.size() < kHeadBytes) {
    Reader reader{Decompressor::make(format_), origin_, {}};
    std::vector<std::byte> head(kHeadBytes);
    std::optional<Error> damage;
    const auto n = decompress(fd, reader, head, damage);
    if (!n) return tl::unexpected(n.error());
    head.resize(*n);
    head_ = std::move(head);
  }
  return std::span<const std::byte>(head_);
}

/// From the last place before `offset` where one can begin.
Archive::Reader Archive::reader_from(FileOffset offset) const {
  Reader reader{nullptr, origin_, {}};
  const auto behind = points_.upper_bound(offset);
  if (behind != points_.begin()) {
    const auto& [at, point] = *std::prev(behind);
    reader.offset = at;
    reader.compressed = point.compressed;
    if (point.state) reader.decompressor = point.state->copy();
  }
  for (const ArchiveMark& mark : {mark_, latest_}) {
    if (mark.offset > offset || mark.offset <= reader.offset) continue;
    reader = {nullptr, mark.compressed, mark.offset};
  }
  if (!reader.decompressor) reader.decompressor = Decompressor::make(format_);
  return reader;
}

/// One of those that are there, if it is nearer than what one can begin from; null while all are needed elsewhere.
Archive::Reader* Archive::reader_for(FileOffset offset) {
  Reader* nearest = nullptr;
  for (Reader& reader : again_) {
    const bool free = !reader.seeking || *reader.seeking == offset || calls_ - reader.used > kGivenUpAfterCalls;
    if (!free || reader.offset > offset) continue;
    if (nearest == nullptr || reader.offset > nearest->offset) nearest = &reader;
  }
  Reader fresh = reader_from(offset);
  if (nearest != nullptr && nearest->offset >= fresh.offset) return nearest;
  if (budget_.full() && !front_ && again_.empty()) return nullptr;
  if (again_.size() < kReadersAgain) return &again_.emplace_back(std::move(fresh));
  Reader* oldest = nullptr;
  for (Reader& reader : again_) {
    const bool free = !reader.seeking || calls_ - reader.used > kGivenUpAfterCalls;
    if (free && (oldest == nullptr || reader.used < oldest->used)) oldest = &reader;
  }
  if (oldest != nullptr) *oldest = std::move(fresh);
  return oldest;
}

// ---- what both have in common

/// Decompresses until `out` is full, the file is at its end, or `damage` is.
Result<std::size_t> Archive::decompress(int fd, Reader& reader, std::span<std::byte> out,
                                        std::optional<Error>& damage) {
  std::array<std::byte, kInputBytes> input;
  std::size_t done = 0;
  std::size_t taken = 0;
  reader.drained = false;
  while (done < out.size() && taken < kInputPerCall) {
    const auto n = pread_fully(fd, input, reader.compressed);
    if (!n) return n;
    std::span<const std::byte> in = std::span(input).first(*n);
    do {
      const auto step = reader.decompressor->step(in, out.subspan(done));
      in = in.subspan(step.consumed);
      taken += step.consumed;
      done += step.produced;
      decompressed_bytes_ += step.produced;
      reader.compressed += step.consumed;
      reader.offset = reader.offset + step.produced;
      if (step.error) {
        damage = *step.error;
        damage->context += ", at byte " + std::to_string(reader.compressed) + " of the file";
        return done;
      }
      if (*n == 0 && step.produced == 0) {
        reader.drained = true;
        return done;
      }
      passed(reader);
    } while (!in.empty() && done < out.size());
  }
  return done;
}

/// Decompresses towards `offset`, at most so many bytes, and drops them. Right behind it there may be damage.
Result<std::size_t> Archive::seek(int fd, Reader& reader, FileOffset offset, std::size_t most,
                                  std::optional<Error>& damage) {
  std::array<std::byte, kScratchBytes> scratch;
  std::size_t done = 0;
  for (std::size_t empty = 0; reader.offset < offset && done < most && empty < 2;) {
    const auto want = std::min<std::uint64_t>(scratch.size(), offset - reader.offset);
    const auto n = decompress(fd, reader, std::span(scratch).first(static_cast<std::size_t>(want)), damage);
    if (!n) return n;
    if (reader.offset < offset && (damage || reader.drained)) return replaced(kNotAsItWas);
    done += *n;
    if (*n == 0) ++empty;
    if (front_ && &reader == &*front_) remember_tail(std::span(scratch).first(*n));
  }
  return done;
}

/// Keeps the place where `reader` is, if that is of use later.
void Archive::passed(const Reader& reader) {
  const bool boundary = reader.decompressor->at_boundary();
  const bool at_front = front_ && &reader == &*front_;
  if (boundary && at_front && reader.offset >= latest_.offset) passed_ = {reader.compressed, reader.offset, 0, origin_};
  const auto behind = points_.upper_bound(reader.offset);
  const std::uint64_t before = behind == points_.begin() ? 0 : std::prev(behind)->first.raw;
  if (reader.offset.raw - before < spacing_) return;
  if (behind != points_.end() && behind->first - reader.offset < spacing_ / 2) return;
  Point point{reader.compressed, nullptr, kBoundaryPointBytes};
  if (!boundary) {
    point.state = reader.decompressor->copy();
    if (!point.state) return;
    point.bytes += point.state->memory_bytes();
  }
  add_point(reader.offset, std::move(point));
}

void Archive::add_point(FileOffset at, Point point) {
  point_bytes_ += point.bytes;
  points_.emplace(at, std::move(point));
  if (point_bytes_ <= kPointBytes) return;
  spacing_ *= 2;
  bool keep = false;
  std::erase_if(points_, [&](const auto& entry) {
    keep = !keep;
    if (!keep) return false;
    point_bytes_ -= entry.second.bytes;
    return true;
  });
}

// ---- whose bytes they are

Result<ArchiveMark> Archive::mark_at(int fd, std::uint64_t compressed, FileOffset offset, std::uint64_t origin) {
  const auto before = digest_before(fd, compressed);
  if (!before) return tl::unexpected(before.error());
  return ArchiveMark{compressed, offset, *before, origin};
}

Result<std::uint64_t> Archive::digest_before(int fd, std::uint64_t compressed) {
  std::array<std::byte, kTailBytes> space;
  const auto part = std::span(space).first(static_cast<std::size_t>(std::min<std::uint64_t>(compressed, kTailBytes)));
  const auto n = pread_fully(fd, part, compressed - part.size());
  if (!n) return tl::unexpected(n.error());
  if (*n < part.size()) return replaced("shorter than what was read of it");
  return digest(part);
}

Status Archive::keep_boundary(int fd) {
  if (passed_.compressed == latest_.compressed) return {};
  const auto before = digest_before(fd, passed_.compressed);
  if (!before) return tl::unexpected(before.error());
  passed_.digest = *before;
  latest_ = passed_;
  return {};
}

/// The file was read up to `compressed`: from now on that has to be there.
Status Archive::reached(int fd, std::uint64_t compressed) {
  compressed_end_ = compressed;
  const auto before = digest_before(fd, compressed);
  if (!before) return tl::unexpected(before.error());
  file_tail_at_ = compressed;
  file_tail_digest_ = *before;
  if (file_head_length_ == kHeadBytes) return {};
  std::array<std::byte, kHeadBytes> space;
  const auto part = std::span(space).first(static_cast<std::size_t>(std::min<std::uint64_t>(compressed, kHeadBytes)));
  const auto n = pread_fully(fd, part, 0);
  if (!n) return tl::unexpected(n.error());
  if (*n < part.size()) return replaced("shorter than what was read of it");
  file_head_length_ = part.size();
  file_head_digest_ = digest(part);
  return {};
}

Status Archive::verify(int fd) const {
  if (file_tail_at_ > 0) {
    const auto before = digest_before(fd, file_tail_at_);
    if (!before) return tl::unexpected(before.error());
    if (*before != file_tail_digest_) return replaced("what was read last has changed");
  }
  std::array<std::byte, kHeadBytes> space;
  const auto part = std::span(space).first(static_cast<std::size_t>(file_head_length_));
  const auto n = pread_fully(fd, part, 0);
  if (!n) return tl::unexpected(n.error());
  if (*n < part.size()) return replaced("shorter than what was read of it");
  if (file_head_length_ > 0 && digest(part) != file_head_digest_) return replaced("its beginning changed");
  return {};
}

}  // namespace fantail
