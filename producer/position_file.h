#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <unordered_map>
#include <vector>

#include "common/base/result.h"
#include "common/base/types.h"
#include "common/base/unique_fd.h"
#include "producer/tailed_file.h"

namespace fantail {

/// How far streams were read, exactly: a file that is mapped and shared, so that what was written before a `kill -9` is
/// there at the next start (docs/decisions/0010-positions-that-survive-a-kill.md). Writing is a copy of 64 bytes. After
/// the system has stopped its pages may be of different moments: another boot begins with an empty file.
///
/// A slot that was cut off by the kill in the midst of writing is no slot. One thread.
class PositionFile {
 public:
  using Slot = std::uint32_t;
  static constexpr Slot kNone = UINT32_MAX;

  /// `owner`: it is made where it is missing, and begun anew in another boot; else kNotFound for both.
  static Result<PositionFile> open(const std::filesystem::path& path, bool owner);
  PositionFile(PositionFile&& other) noexcept;
  PositionFile& operator=(PositionFile&& other) noexcept;
  ~PositionFile();

  /// The slots in use.
  std::unordered_map<StreamId, Slot> slots() const;
  std::optional<Fingerprint> read(Slot slot) const;
  /// A slot of its own for a stream. kNoSpace: the file cannot grow; nothing is mapped then that has no room on disk.
  Result<Slot> add(StreamId stream, const Fingerprint& fingerprint);
  void write(Slot slot, StreamId stream, const Fingerprint& fingerprint);
  void erase(Slot slot);

 private:
  struct Entry;
  struct Header;
  PositionFile(UniqueFd fd, std::byte* memory, std::size_t bytes);
  Entry* entry(Slot slot) const;
  std::size_t capacity() const;
  Status grow();
  void unmap();

  UniqueFd fd_;
  std::byte* memory_ = nullptr;
  std::size_t bytes_ = 0;
  std::vector<Slot> free_;  ///< below unused_
  Slot unused_ = 0;         ///< from here on none was ever used
};

}  // namespace fantail
