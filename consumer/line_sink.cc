#include "consumer/line_sink.h"

namespace fantail {

Result<FileOffset> LineSink::open_stream(const StreamMeta& stream, FileOffset cursor) {
  lines_.insert_or_assign(stream.stream, Line{&stream, RecordAssembler(cursor, context_), format_.prepare(stream), {}});
  note_waiting(lines_.at(stream.stream));
  return cursor;
}

/// Runs `feed(record callback)` and emits what comes of it as one piece.
template <class Feed>
void LineSink::format_records(Line& line, WallTime read_time, const Feed& feed) {
  const std::string time = to_iso8601(read_time);
  formatted_.clear();
  feed(
      [&](FileOffset offset, std::string_view text) { format_.append(formatted_, line.prepared, offset, time, text); });
  if (!formatted_.empty()) emit(*line.meta, formatted_);
}

void LineSink::note_waiting(const Line& line) {
  const auto note = [&](std::set<StreamId>& streams, bool waiting) {
    if (waiting) {
      streams.insert(line.meta->stream);
    } else {
      streams.erase(line.meta->stream);
    }
  };
  note(partial_, line.records.has_partial());
  note(open_, line.records.has_open());
}

Status LineSink::write(const StreamMeta& stream, FileOffset, std::span<const std::byte> bytes, WallTime read_time) {
  Line& line = lines_.at(stream.stream);
  const MonoTime now = mono_now();
  if (auto ok = make_room(stream, read_time); !ok) {
    line.records.more_is_coming(now);
    return ok;
  }
  line.read_time = read_time;
  if (format_.raw() && context_.rules.plain()) {
    line.records.feed_runs(bytes, now, [&](std::string_view run) { emit(stream, run); });
  } else {
    format_records(line, read_time, [&](const auto& each) { line.records.feed(bytes, now, each); });
  }
  moved_.insert(stream.stream);
  note_waiting(line);
  return {};
}

Status LineSink::lose(const StreamMeta& stream, ByteRange range, wire::LossReason reason) {
  if (auto ok = make_room(stream, wall_now()); !ok) return ok;
  Line& line = lines_.at(stream.stream);
  format_records(line, line.read_time, [&](const auto& each) { line.records.finish(each); });
  std::string notice;
  format_.append_loss(notice, line.prepared, range, to_iso8601(wall_now()), reason);
  emit(stream, notice);
  line.records.skip_to(range.to);
  note_waiting(line);
  moved_.insert(stream.stream);
  return {};
}

Status LineSink::seal(const StreamMeta& stream, FileOffset) {
  Line& line = lines_.at(stream.stream);
  if (!line.records.has_partial() && !line.records.has_open()) return {};
  if (auto ok = make_room(stream, line.read_time); !ok) return ok;
  format_records(line, line.read_time, [&](const auto& each) { line.records.finish(each); });
  note_waiting(line);
  moved_.insert(stream.stream);
  return {};
}

void LineSink::emit_overdue(MonoTime now) {
  std::set<StreamId> waiting = open_;
  if (flush_partial_) waiting.insert(partial_.begin(), partial_.end());
  for (const StreamId id : waiting) {
    Line& line = lines_.at(id);
    if (!line.records.overdue(now, flush_partial_)) continue;
    if (!make_room(*line.meta, line.read_time)) return;  // said already by whoever writes next
    format_records(line, line.read_time,
                   [&](const auto& each) { line.records.flush_overdue(now, flush_partial_, each); });
    note_waiting(line);
    moved_.insert(id);
  }
}

std::vector<Checkpoint::Position> LineSink::take_positions() {
  std::vector<Checkpoint::Position> out;
  out.reserve(moved_.size());
  for (const StreamId id : moved_) out.push_back({id, lines_.at(id).records.position()});
  moved_.clear();
  return out;
}

}  // namespace fantail
