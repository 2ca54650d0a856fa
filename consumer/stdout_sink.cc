#include "consumer/stdout_sink.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace fantail {
namespace {

constexpr std::size_t kBufferBytes = 1024 * 1024;
constexpr int kPipeBytes = 1024 * 1024;
constexpr std::size_t kNeverBlocks = 4096;  // PIPE_BUF: what a pipe takes whole once poll says it is writable

}  // namespace

StdoutSink::StdoutSink(RecordFormat format, LineRules rules, Duration flush_partial)
    : LineSink(std::move(format), std::move(rules), flush_partial) {
  (void)::fcntl(STDOUT_FILENO, F_SETPIPE_SZ, kPipeBytes);  // fails if it is no pipe: all the same
}

Status StdoutSink::drain() {
  being_read_ = false;
  while (written_ < buffer_.size() && !closed_) {
    pollfd writable{STDOUT_FILENO, POLLOUT, 0};
    if (::poll(&writable, 1, 0) <= 0) break;
    const std::size_t size = std::min(buffer_.size() - written_, kNeverBlocks);
    const ssize_t n = ::write(STDOUT_FILENO, buffer_.data() + written_, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n < 0 && errno == EPIPE) closed_ = true;
    if (n < 0) return fail_errno(errno, "standard output");
    written_ += static_cast<std::size_t>(n);
    being_read_ = true;
  }
  if (written_ == buffer_.size()) {
    buffer_.clear();
    written_ = 0;
  }
  return {};
}

Status StdoutSink::make_room(const StreamMeta&, WallTime) {
  if (buffer_.size() - written_ < kBufferBytes) return {};
  if (auto ok = drain(); !ok) return ok;
  if (buffer_.size() - written_ < kBufferBytes) return {};
  return fail(ErrorCode::kWouldBlock, "standard output is not being read");
}

Status StdoutSink::flush(MonoTime now) {
  emit_overdue(now);
  return drain();
}

Checkpoint StdoutSink::checkpoint() {
  Checkpoint out;
  out.positions = take_positions();
  return out;
}

}  // namespace fantail
