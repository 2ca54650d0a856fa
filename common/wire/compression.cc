#include "common/wire/compression.h"

#include <zstd.h>

#include <algorithm>
#include <string>

namespace fantail::wire {

struct ChunkCompressor::Impl {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  int level = 1;
  ~Impl() { ZSTD_freeCCtx(context); }
};

ChunkCompressor::ChunkCompressor(int level) : impl_(std::make_unique<Impl>()) { impl_->level = level; }
ChunkCompressor::~ChunkCompressor() = default;
ChunkCompressor::ChunkCompressor(ChunkCompressor&&) noexcept = default;
ChunkCompressor& ChunkCompressor::operator=(ChunkCompressor&&) noexcept = default;

std::optional<std::size_t> ChunkCompressor::compress(std::span<const std::byte> raw, std::span<std::byte> out) {
  if (raw.empty()) return std::nullopt;
  const std::size_t room = std::min(out.size(), raw.size() - 1);
  const std::size_t n = ZSTD_compressCCtx(impl_->context, out.data(), room, raw.data(), raw.size(), impl_->level);
  if (ZSTD_isError(n) != 0) return std::nullopt;  // the only cause here is too little room
  return n;
}

struct ChunkDecompressor::Impl {
  ZSTD_DCtx* context = ZSTD_createDCtx();
  std::vector<std::byte> buffer;
  ~Impl() { ZSTD_freeDCtx(context); }
};

ChunkDecompressor::ChunkDecompressor() : impl_(std::make_unique<Impl>()) {}
ChunkDecompressor::~ChunkDecompressor() = default;

Result<std::span<const std::byte>> ChunkDecompressor::raw(const Chunk& chunk, std::span<const std::byte> payload) {
  if (chunk.encoding == Encoding::kNone) return payload;
  if (impl_->buffer.size() < chunk.raw_length) impl_->buffer.resize(chunk.raw_length);
  const std::size_t n =
      ZSTD_decompressDCtx(impl_->context, impl_->buffer.data(), chunk.raw_length, payload.data(), payload.size());
  if (ZSTD_isError(n) != 0) return fail(ErrorCode::kCorrupt, std::string("zstd: ") + ZSTD_getErrorName(n));
  if (n != chunk.raw_length) return fail(ErrorCode::kCorrupt, "zstd: raw length differs from the header");
  return std::span<const std::byte>(impl_->buffer.data(), n);
}

}  // namespace fantail::wire
