#include "producer/position_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "common/base/digest.h"
#include "common/storage/append_file.h"

namespace fantail {

struct PositionFile::Header {
  std::array<char, 8> magic;
  std::uint32_t version;
  std::uint32_t entry_bytes;
  std::uint64_t boot;  ///< digest of the system's boot id
  std::array<std::uint64_t, 5> reserved;
};

struct PositionFile::Entry {
  StreamId stream;
  std::uint64_t cursor;
  std::uint64_t head_digest;
  std::uint64_t tail_digest;
  std::uint32_t head_length;
  std::uint32_t reserved;
  std::uint64_t unused;
  std::uint64_t sum;  ///< digest of what is before; an empty entry has none that fits

  std::uint64_t right_sum() const {
    return digest(std::span(reinterpret_cast<const std::byte*>(this), offsetof(Entry, sum)));
  }
  bool valid() const { return sum == right_sum(); }
};

namespace {

constexpr std::array<char, 8> kMagic = {'F', 'N', 'T', 'L', 'P', 'O', 'S', '\n'};
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kEntryBytes = 64;
constexpr std::size_t kLeastBytes = 64 * 1024;

std::uint64_t this_boot() {
  const std::string id = boot_id();
  return digest(as_bytes(id));
}

/// Maps `bytes` of the file; they are allocated, or writing to them could end the process.
Result<std::byte*> map(int fd, std::size_t bytes, const std::string& path) {
  if (const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes)); error != 0) {
    return fail_errno(error, path);
  }
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return fail_errno(errno, path);
  return static_cast<std::byte*>(memory);
}

}  // namespace

Result<PositionFile> PositionFile::open(const std::filesystem::path& path, bool owner) {
  static_assert(sizeof(Header) == kEntryBytes && sizeof(Entry) == kEntryBytes);
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | (owner ? O_CREAT : 0), 0640));
  if (!fd) return fail_errno(errno, path.string());
  Header header{};
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, path.string());
  const bool whole = ::pread(fd.get(), &header, sizeof header, 0) == static_cast<ssize_t>(sizeof header);
  const Header right{kMagic, kVersion, kEntryBytes, this_boot(), {}};
  const bool ours = whole && std::memcmp(&header, &right, sizeof header) == 0;
  if (!ours) {
    if (!owner) return fail(ErrorCode::kNotFound, path.string() + ": no positions of since the system was started");
    if (::ftruncate(fd.get(), 0) != 0) return fail_errno(errno, path.string());
    status.st_size = 0;
  }
  const std::size_t bytes = std::max(kLeastBytes, static_cast<std::size_t>(status.st_size) / kEntryBytes * kEntryBytes);
  const auto memory = map(fd.get(), bytes, path.string());
  if (!memory) return tl::unexpected(memory.error());
  if (!ours) std::memcpy(*memory, &right, sizeof right);
  PositionFile file(std::move(fd), *memory, bytes);
  for (Slot slot = 0; slot < file.capacity(); ++slot) {
    if (file.entry(slot)->valid()) {
      for (; file.unused_ < slot; ++file.unused_) file.free_.push_back(file.unused_);
      file.unused_ = slot + 1;
    }
  }
  return file;
}

PositionFile::PositionFile(UniqueFd fd, std::byte* memory, std::size_t bytes)
    : fd_(std::move(fd)), memory_(memory), bytes_(bytes) {}

PositionFile::PositionFile(PositionFile&& other) noexcept
    : fd_(std::move(other.fd_)),
      memory_(std::exchange(other.memory_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      free_(std::move(other.free_)),
      unused_(other.unused_) {}

PositionFile& PositionFile::operator=(PositionFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(memory_, other.memory_);
  std::swap(bytes_, other.bytes_);
  std::swap(free_, other.free_);
  std::swap(unused_, other.unused_);
  return *this;
}

PositionFile::~PositionFile() { unmap(); }

void PositionFile::unmap() {
  if (memory_ != nullptr) ::munmap(std::exchange(memory_, nullptr), bytes_);
}

PositionFile::Entry* PositionFile::entry(Slot slot) const {
  return reinterpret_cast<Entry*>(memory_ + sizeof(Header)) + slot;
}

std::size_t PositionFile::capacity() const { return (bytes_ - sizeof(Header)) / sizeof(Entry); }

std::unordered_map<StreamId, PositionFile::Slot> PositionFile::slots() const {
  std::unordered_map<StreamId, Slot> out;
  for (Slot slot = 0; slot < unused_; ++slot) {
    if (entry(slot)->valid()) out.emplace(entry(slot)->stream, slot);
  }
  return out;
}

std::optional<Fingerprint> PositionFile::read(Slot slot) const {
  if (slot >= unused_ || !entry(slot)->valid()) return std::nullopt;
  const Entry& e = *entry(slot);
  return Fingerprint{{e.cursor}, e.head_length, e.head_digest, e.tail_digest};
}

Status PositionFile::grow() {
  const std::size_t bytes = bytes_ * 2;
  const auto memory = map(fd_.get(), bytes, "positions");
  if (!memory) return tl::unexpected(memory.error());
  unmap();
  memory_ = *memory;
  bytes_ = bytes;
  return {};
}

Result<PositionFile::Slot> PositionFile::add(StreamId stream, const Fingerprint& fingerprint) {
  Slot slot = unused_;
  if (!free_.empty()) {
    slot = free_.back();
    free_.pop_back();
  } else {
    if (unused_ == capacity()) {
      if (auto ok = grow(); !ok) return tl::unexpected(ok.error());
    }
    ++unused_;
  }
  write(slot, stream, fingerprint);
  return slot;
}

void PositionFile::write(Slot slot, StreamId stream, const Fingerprint& fingerprint) {
  Entry e{
      stream, fingerprint.cursor.raw, fingerprint.head_digest, fingerprint.tail_digest, fingerprint.head_length, 0, 0,
      0};
  e.sum = e.right_sum();
  std::memcpy(static_cast<void*>(entry(slot)), &e, sizeof e);
}

void PositionFile::erase(Slot slot) {
  std::memset(static_cast<void*>(entry(slot)), 0, sizeof(Entry));
  free_.push_back(slot);
}

}  // namespace fantail
