#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/base/result.h"
#include "common/wire/messages.h"

namespace fantail::wire {

/// Compresses chunks with zstd, each alone. Keeps its work space between calls (about 1 MiB at level 1). Not
/// thread-safe.
class ChunkCompressor {
 public:
  explicit ChunkCompressor(int level);
  ~ChunkCompressor();
  ChunkCompressor(ChunkCompressor&&) noexcept;
  ChunkCompressor& operator=(ChunkCompressor&&) noexcept;

  /// Writes the compressed form of `raw` into `out` and returns its size; nothing when it would not be smaller than
  /// `raw` or does not fit into `out`: then the chunk travels as it is.
  std::optional<std::size_t> compress(std::span<const std::byte> raw, std::span<std::byte> out);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Undoes a chunk's encoding. Keeps its work space and one raw buffer between calls. Not thread-safe.
class ChunkDecompressor {
 public:
  ChunkDecompressor();
  ~ChunkDecompressor();

  /// The raw bytes: `payload` itself if it is not encoded, else a buffer valid until the next call. kCorrupt when the
  /// payload is not exactly `chunk.raw_length` bytes of zstd; never writes more than that.
  Result<std::span<const std::byte>> raw(const Chunk& chunk, std::span<const std::byte> payload);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fantail::wire
