#pragma once

#include <string>

#include "consumer/line_sink.h"

namespace fantail {

/// Records to standard output as they come. Never blocks the loop: a reader that is slow, or stopped, makes make_room
/// say so, and the streams wait.
class StdoutSink final : public LineSink {
 public:
  /// Makes a pipe as large as one may be without privileges (1 MiB).
  StdoutSink(RecordFormat format, LineRules rules, Duration flush_partial);

  const std::string& key() const override { return key_; }
  Status flush(MonoTime now) override;
  void finish() override { emit_overdue(MonoTime::max()); }
  Checkpoint checkpoint() override;
  bool drained() const override { return buffer_.empty(); }
  /// Something could be written, when it was tried last.
  bool being_read() const { return being_read_; }
  /// Nobody reads any more (EPIPE).
  bool closed() const { return closed_; }

 protected:
  Status make_room(const StreamMeta& stream, WallTime time) override;
  void emit(const StreamMeta&, std::string_view output) override { buffer_ += output; }

 private:
  Status drain();
  std::string key_ = "stdout";
  std::string buffer_;
  std::size_t written_ = 0;  ///< of buffer_
  bool being_read_ = false;
  bool closed_ = false;
};

}  // namespace fantail
