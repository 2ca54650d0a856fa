#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "common/base/result.h"

namespace fantail {

enum class ArchiveFormat : std::uint8_t { kGzip, kZstd };

/// Longest beginning that tells what a file is.
inline constexpr std::size_t kMagicBytes = 4;
/// By the magic at its beginning; a name says nothing.
std::optional<ArchiveFormat> archive_format(std::span<const std::byte> beginning);
/// Too short to tell, and it may become the beginning of an archive.
bool may_become_archive(std::span<const std::byte> beginning);

/// One pass over the bytes of an archive: members (gzip) or frames (zstd), one behind the other. What is put out before
/// an error does not depend on how the bytes come in pieces.
class Decompressor {
 public:
  struct Step {
    std::size_t consumed = 0;
    std::size_t produced = 0;
    std::optional<Error> error{};  ///< kCorrupt or kUnsupported: behind what was produced there is no more
  };

  virtual ~Decompressor() = default;

  /// Takes from `in` and puts into `out` until one of them is at its end, at most to the end of a member.
  virtual Step step(std::span<const std::byte> in, std::span<std::byte> out) = 0;
  /// Between two members: whoever begins here needs nothing of what was before, and an archive may end here.
  virtual bool at_boundary() const = 0;
  /// One that goes on from here, too; null where the format has no way to do that.
  virtual std::unique_ptr<Decompressor> copy() const = 0;
  virtual std::size_t memory_bytes() const = 0;

  /// At the beginning of an archive, or at a boundary.
  static std::unique_ptr<Decompressor> make(ArchiveFormat format);
};

}  // namespace fantail
