#pragma once

#include <zlib.h>
#include <zstd.h>

#include <stdexcept>
#include <string>
#include <string_view>

#include "producer/decompressor.h"

namespace fantail::test {

inline std::string gzip(std::string_view plain, int level = 6) {
  z_stream s{};
  deflateInit2(&s, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&s, plain.size()) + 64, '\0');
  s.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(plain.data()));
  s.avail_in = static_cast<uInt>(plain.size());
  s.next_out = reinterpret_cast<Bytef*>(out.data());
  s.avail_out = static_cast<uInt>(out.size());
  if (deflate(&s, Z_FINISH) != Z_STREAM_END) throw std::runtime_error("cannot compress");
  out.resize(s.total_out);
  deflateEnd(&s);
  return out;
}

struct ZstdFrame {
  int level = 3;
  bool checksum = true;
  bool size_in_header = true;
  int window_log = 0;
};
inline std::string zstd(std::string_view plain, const ZstdFrame& frame = {}) {
  ZSTD_CCtx* c = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, frame.level);
  ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, frame.checksum ? 1 : 0);
  ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, frame.size_in_header ? 1 : 0);
  if (frame.window_log > 0) ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, frame.window_log);
  std::string out(ZSTD_compressBound(plain.size()) + 64, '\0');
  ZSTD_inBuffer in{plain.data(), plain.size(), 0};
  ZSTD_outBuffer to{out.data(), out.size(), 0};
  // Without an end of the input in sight, so that a header says what it is told to, not what fits.
  while (!frame.size_in_header && in.pos < in.size) ZSTD_compressStream2(c, &to, &in, ZSTD_e_continue);
  while (ZSTD_compressStream2(c, &to, &in, ZSTD_e_end) != 0) {
  }
  ZSTD_freeCCtx(c);
  out.resize(to.pos);
  return out;
}
inline std::string compress(ArchiveFormat format, std::string_view plain) {
  return format == ArchiveFormat::kGzip ? gzip(plain) : zstd(plain);
}

}  // namespace fantail::test
