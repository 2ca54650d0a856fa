#include "consumer/zstd_frames.h"

#include <zstd.h>

namespace fantail {
namespace {

// Log lines shrink to about a tenth; higher levels cost more than twice the time and save some percent.
constexpr int kLevel = 3;

}  // namespace

struct ZstdFrames::Impl {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  std::string frame;
  ~Impl() { ZSTD_freeCCtx(context); }
};

ZstdFrames::ZstdFrames() : impl_(std::make_unique<Impl>()) {
  ZSTD_CCtx_setParameter(impl_->context, ZSTD_c_compressionLevel, kLevel);
  ZSTD_CCtx_setParameter(impl_->context, ZSTD_c_checksumFlag, 1);
}
ZstdFrames::~ZstdFrames() = default;

Result<std::string_view> ZstdFrames::compress(std::string_view raw) {
  impl_->frame.resize(ZSTD_compressBound(raw.size()));
  const std::size_t n =
      ZSTD_compress2(impl_->context, impl_->frame.data(), impl_->frame.size(), raw.data(), raw.size());
  if (ZSTD_isError(n) != 0) return fail(ErrorCode::kIo, std::string("zstd: ") + ZSTD_getErrorName(n));
  return std::string_view(impl_->frame).substr(0, n);
}

}  // namespace fantail
