#include "producer/decompressor.h"

#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <array>
#include <limits>
#include <new>
#include <string>

namespace fantail {
namespace {

constexpr std::array kGzipMagic = {std::byte{0x1f}, std::byte{0x8b}};
constexpr std::array kZstdMagic = {std::byte{0x28}, std::byte{0xb5}, std::byte{0x2f}, std::byte{0xfd}};

constexpr std::array kSkippedMagic = {std::byte{0x50}, std::byte{0x2a}, std::byte{0x4d}, std::byte{0x18}};

constexpr int kGzipWindow = 15 + 16;            // the largest, in a gzip wrapper
constexpr std::size_t kGzipMemory = 44 * 1024;  // of zlib: about 10 KiB, and a window of 32 KiB
constexpr int kZstdWindowLog = 27;              // 128 MiB: what the zstd program takes without being told
constexpr std::size_t kZstdBeginning = 5;       // of a frame: tells how long its header is

bool begins(std::span<const std::byte> bytes, std::span<const std::byte> magic) {
  return std::equal(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(std::min(bytes.size(), magic.size())),
                    magic.begin());
}

/// Of a frame that is to be skipped: pzstd puts one before each other. Its first byte has four bits for anybody's use.
bool begins_skipped(std::span<const std::byte> bytes) {
  return !bytes.empty() && (bytes.front() & std::byte{0xf0}) == kSkippedMagic.front() &&
         begins(bytes.subspan(1), std::span(kSkippedMagic).subspan(1));
}

Error corrupt(std::string why) { return {ErrorCode::kCorrupt, std::move(why)}; }

class GzipDecompressor final : public Decompressor {
 public:
  GzipDecompressor() {
    if (::inflateInit2(&stream_, kGzipWindow) != Z_OK) throw std::bad_alloc();
  }
  GzipDecompressor(const GzipDecompressor& other) : boundary_(other.boundary_), padding_(other.padding_) {
    if (::inflateCopy(&stream_, const_cast<z_stream*>(&other.stream_)) != Z_OK) throw std::bad_alloc();
  }
  GzipDecompressor& operator=(const GzipDecompressor&) = delete;
  ~GzipDecompressor() override { ::inflateEnd(&stream_); }

  Step step(std::span<const std::byte> in, std::span<std::byte> out) override {
    if (in.empty() && boundary_) return {};
    if (boundary_ && (padding_ || in.front() == std::byte{0})) return pad(in);
    if (boundary_) ::inflateReset(&stream_);
    constexpr std::size_t kMost = std::numeric_limits<uInt>::max();
    const std::size_t in_size = std::min(in.size(), kMost);
    const std::size_t out_size = std::min(out.size(), kMost);
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(in.data()));
    stream_.avail_in = static_cast<uInt>(in_size);
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(out_size);
    const int outcome = ::inflate(&stream_, Z_NO_FLUSH);
    Step done{in_size - stream_.avail_in, out_size - stream_.avail_out};
    boundary_ = outcome == Z_STREAM_END;
    const bool fine = outcome == Z_OK || outcome == Z_STREAM_END || outcome == Z_BUF_ERROR;
    if (!fine) done.error = corrupt(std::string("gzip: ") + (stream_.msg != nullptr ? stream_.msg : ::zError(outcome)));
    return done;
  }
  bool at_boundary() const override { return boundary_; }
  std::unique_ptr<Decompressor> copy() const override { return std::make_unique<GzipDecompressor>(*this); }
  std::size_t memory_bytes() const override { return kGzipMemory; }

 private:
  /// What tapes and block devices put behind an archive: zeros up to the end.
  Step pad(std::span<const std::byte> in) {
    padding_ = true;
    const auto other = std::find_if(in.begin(), in.end(), [](std::byte b) { return b != std::byte{0}; });
    Step done{static_cast<std::size_t>(other - in.begin()), 0};
    if (other != in.end()) done.error = corrupt("gzip: something else than zeros behind the archive");
    return done;
  }

  z_stream stream_{};
  bool boundary_ = true;
  bool padding_ = false;
};

class ZstdDecompressor final : public Decompressor {
 public:
  ZstdDecompressor() : stream_(ZSTD_createDStream()) {
    if (stream_ == nullptr) throw std::bad_alloc();
    ZSTD_DCtx_setParameter(stream_, ZSTD_d_windowLogMax, kZstdWindowLog);
  }
  ZstdDecompressor(const ZstdDecompressor&) = delete;
  ZstdDecompressor& operator=(const ZstdDecompressor&) = delete;
  ~ZstdDecompressor() override { ZSTD_freeDStream(stream_); }

  Step step(std::span<const std::byte> in, std::span<std::byte> out) override {
    if (in.empty() && !full_) return {};  // zstd takes many calls without progress for an error
    // At an error zstd does not tell what it put out in the same call. So each call either puts out what is decoded, or
    // gets the next block and no more.
    ZSTD_inBuffer from{in.data(), full_ ? 0 : std::min(in.size(), wanted_), 0};
    ZSTD_outBuffer to{out.data(), out.size(), 0};
    const std::size_t outcome = ZSTD_decompressStream(stream_, &to, &from);
    Step done{from.pos, to.pos};
    if (ZSTD_isError(outcome) != 0) {
      done.error = error_of(outcome);
      return done;
    }
    boundary_ = outcome == 0;
    full_ = to.pos == to.size && !boundary_;
    wanted_ = boundary_ ? kZstdBeginning : outcome;
    return done;
  }
  bool at_boundary() const override { return boundary_; }
  std::unique_ptr<Decompressor> copy() const override { return nullptr; }
  std::size_t memory_bytes() const override { return ZSTD_sizeof_DStream(stream_); }

 private:
  static Error error_of(std::size_t outcome) {
    const std::string why = std::string("zstd: ") + ZSTD_getErrorName(outcome);
    switch (ZSTD_getErrorCode(outcome)) {
      case ZSTD_error_dictionary_wrong:
        return {ErrorCode::kUnsupported, why + "; archives that need a dictionary are not read"};
      case ZSTD_error_frameParameter_windowTooLarge:
        return {ErrorCode::kUnsupported, why + "; windows of more than 128 MiB are not read"};
      default: return corrupt(why);
    }
  }

  ZSTD_DStream* stream_;
  bool boundary_ = true;
  bool full_ = false;                    ///< the last output was, so there may be more without input
  std::size_t wanted_ = kZstdBeginning;  ///< bytes to the end of the next block
};

}  // namespace

std::optional<ArchiveFormat> archive_format(std::span<const std::byte> beginning) {
  if (beginning.size() >= kGzipMagic.size() && begins(beginning, kGzipMagic)) return ArchiveFormat::kGzip;
  if (beginning.size() >= kZstdMagic.size() && (begins(beginning, kZstdMagic) || begins_skipped(beginning))) {
    return ArchiveFormat::kZstd;
  }
  return std::nullopt;
}

bool may_become_archive(std::span<const std::byte> beginning) {
  if (beginning.empty() || archive_format(beginning)) return false;
  return (beginning.size() < kGzipMagic.size() && begins(beginning, kGzipMagic)) ||
         (beginning.size() < kZstdMagic.size() && begins(beginning, kZstdMagic)) ||
         // One byte alone may as well be the first letter of a text.
         (beginning.size() > 1 && beginning.size() < kSkippedMagic.size() && begins_skipped(beginning));
}

std::unique_ptr<Decompressor> Decompressor::make(ArchiveFormat format) {
  if (format == ArchiveFormat::kGzip) return std::make_unique<GzipDecompressor>();
  return std::make_unique<ZstdDecompressor>();
}

}  // namespace fantail
