#pragma once

#include <string>

#include "consumer/line_sink.h"

namespace fantail {

/// Records to standard output as they come. Never blocks the loop: a reader that is slow, or stopped, makes make_room
/// say so, and the streams wait.
class StdoutSink final : public LineSink {
 public:
  StdoutSink(RecordFormat format, LineRules rules, Duration flush_partial)
      : LineSink(std::move(format), std::move(rules), flush_partial) {}

  const std::string& key() const override { return key_; }
  Status flush(MonoTime now) override;
  void finish() override { emit_overdue(MonoTime::max()); }
  Checkpoint checkpoint() override;
  bool drained() const override { return buffer_.empty(); }
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
  bool closed_ = false;
};

}  // namespace fantail
