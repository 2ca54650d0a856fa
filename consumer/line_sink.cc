#include "consumer/line_sink.h"

namespace fantail {

Result<FileOffset> LineSink::open_stream(const StreamMeta& stream, FileOffset cursor) {
  lines_.insert_or_assign(stream.stream, Line{&stream, LineAssembler(cursor), format_.prepare(stream), {}});
  return cursor;
}

/// Runs `feed(line callback)` and emits what comes of it as one piece.
template <class Feed>
void LineSink::format_lines(Line& line, WallTime read_time, const Feed& feed) {
  const std::string time = to_iso8601(read_time);
  formatted_.clear();
  feed(
      [&](FileOffset offset, std::string_view text) { format_.append(formatted_, line.prepared, offset, time, text); });
  if (!formatted_.empty()) emit(*line.meta, formatted_);
}

Status LineSink::write(const StreamMeta& stream, FileOffset, std::span<const std::byte> bytes, WallTime read_time) {
  if (auto ok = make_room(stream, read_time); !ok) return ok;
  Line& line = lines_.at(stream.stream);
  line.read_time = read_time;
  const MonoTime now = mono_now();
  if (format_.raw()) {
    line.assembler.feed_runs(bytes, now, [&](std::string_view run) { emit(stream, run); });
  } else {
    format_lines(line, read_time, [&](const auto& each) { line.assembler.feed(bytes, now, each); });
  }
  moved_.insert(stream.stream);
  if (line.assembler.has_partial()) {
    partial_.insert(stream.stream);
  } else {
    partial_.erase(stream.stream);
  }
  return {};
}

Status LineSink::lose(const StreamMeta& stream, ByteRange range, wire::LossReason reason) {
  if (auto ok = make_room(stream, wall_now()); !ok) return ok;
  Line& line = lines_.at(stream.stream);
  format_lines(line, line.read_time, [&](const auto& each) { line.assembler.finish(each); });
  std::string notice;
  format_.append_loss(notice, line.prepared, range, to_iso8601(wall_now()), reason);
  emit(stream, notice);
  line.assembler.skip_to(range.to);
  partial_.erase(stream.stream);
  moved_.insert(stream.stream);
  return {};
}

Status LineSink::seal(const StreamMeta& stream, FileOffset) {
  Line& line = lines_.at(stream.stream);
  if (!line.assembler.has_partial()) return {};
  if (auto ok = make_room(stream, line.read_time); !ok) return ok;
  format_lines(line, line.read_time, [&](const auto& each) { line.assembler.finish(each); });
  partial_.erase(stream.stream);
  moved_.insert(stream.stream);
  return {};
}

void LineSink::emit_overdue_partials(MonoTime now) {
  if (!flush_partial_) return;
  for (const StreamId id : std::set(partial_)) {
    Line& line = lines_.at(id);
    if (now - line.assembler.partial_since() < *flush_partial_) continue;
    if (!make_room(*line.meta, line.read_time)) return;  // said already by whoever writes next
    format_lines(line, line.read_time, [&](const auto& each) { line.assembler.finish(each); });
    partial_.erase(id);
    moved_.insert(id);
  }
}

std::vector<Checkpoint::Position> LineSink::take_positions() {
  std::vector<Checkpoint::Position> out;
  out.reserve(moved_.size());
  for (const StreamId id : moved_) out.push_back({id, lines_.at(id).assembler.done()});
  moved_.clear();
  return out;
}

}  // namespace fantail
