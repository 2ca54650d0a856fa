#pragma once

#include <optional>
#include <set>
#include <string>
#include <unordered_map>

#include "consumer/record_assembler.h"
#include "consumer/record_format.h"
#include "consumer/sink.h"

namespace fantail {

/// What sinks of records have in common: making records of streams, formatting them, knowing how far each stream got.
class LineSink : public Sink {
 public:
  Result<FileOffset> open_stream(const StreamMeta& stream, FileOffset cursor) override;
  Status write(const StreamMeta& stream, FileOffset offset, std::span<const std::byte> bytes,
               WallTime read_time) override;
  Status lose(const StreamMeta& stream, ByteRange range, wire::LossReason reason) override;
  Status seal(const StreamMeta& stream, FileOffset final_length) override;
  bool settled() const override { return open_.empty(); }
  RecordCounters counters() const override { return context_.counters; }

 protected:
  /// `flush_partial`: emit an unfinished last line after so long; nothing: only when its stream is sealed.
  LineSink(RecordFormat format, LineRules rules, std::optional<Duration> flush_partial)
      : format_(std::move(format)), flush_partial_(flush_partial) {
    context_.rules = std::move(rules);
  }

  /// There is room to take more of this stream; an error says why not.
  virtual Status make_room(const StreamMeta& stream, WallTime time) = 0;
  /// Takes finished output. Never fails: it may keep it in memory, make_room bounds how much.
  virtual void emit(const StreamMeta& stream, std::string_view output) = 0;

  /// Emits unfinished lines, and records of many lines, that have waited long enough.
  void emit_overdue(MonoTime now);
  /// Streams that moved since the last call, and how far their whole records go.
  std::vector<Checkpoint::Position> take_positions();

 private:
  struct Line {
    const StreamMeta* meta;
    RecordAssembler records;
    RecordFormat::Prepared prepared;
    WallTime read_time;
  };
  template <class Feed>
  void format_records(Line& line, WallTime read_time, const Feed& feed);
  void note_waiting(const Line& line);

  RecordFormat format_;
  std::optional<Duration> flush_partial_;
  RecordContext context_;
  std::unordered_map<StreamId, Line> lines_;
  std::set<StreamId> moved_;
  std::set<StreamId> partial_;  ///< with an unfinished line
  std::set<StreamId> open_;     ///< with a record that may go on
  std::string formatted_;
};

}  // namespace fantail
