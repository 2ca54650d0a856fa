#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "consumer/line_assembler.h"
#include "consumer/line_rules.h"

namespace fantail {

/// What the streams of one sink have in common.
struct RecordContext {
  LineRules rules;
  RecordCounters counters;
  std::string decoded;  ///< scratch
};

/// Makes records of one stream: lines are cut, decoded, joined and filtered. Who begins anew at any position() gets the
/// same records from there, as long as no time has passed that ends one. At most two times `max_bytes` are held.
class RecordAssembler {
 public:
  /// `context` is borrowed.
  RecordAssembler(FileOffset start, RecordContext& context)
      : context_(&context), lines_(start, context.rules.cut, context.counters) {}

  /// Everything below was handed out as whole records, or left out as the rules say.
  FileOffset position() const { return open_ ? open_->start : lines_.done(); }
  bool has_partial() const { return lines_.has_partial(); }
  /// A record of whole lines is there, and only waits whether more of it comes.
  bool has_open() const { return open_.has_value(); }

  /// Calls `record(offset, text)` for each record that `bytes` complete. `offset` is that of its first line, `text` has
  /// newlines between its lines and borrows.
  template <class Record>
  void feed(std::span<const std::byte> bytes, MonoTime now, const Record& record) {
    fed_ = now;
    lines_.feed(bytes, now, each_line(record));
  }
  /// As LineAssembler; only where the rules are plain.
  template <class Run>
  void feed_runs(std::span<const std::byte> bytes, MonoTime now, const Run& run) {
    lines_.feed_runs(bytes, now, run);
  }

  /// Hands out all that is there: no more will come, or a loss is next.
  template <class Record>
  void finish(const Record& record) {
    lines_.finish(each_line(record));
    close_all(record);
  }
  /// Something has waited long enough; `partial_after`: so long for an unfinished line, nothing: for ever.
  bool overdue(MonoTime now, std::optional<Duration> partial_after) const {
    return partial_overdue(now, partial_after) || open_overdue(now);
  }
  /// Hands it out.
  template <class Record>
  void flush_overdue(MonoTime now, std::optional<Duration> partial_after, const Record& record) {
    if (partial_overdue(now, partial_after)) lines_.flush_partial(each_line(record));
    if (open_overdue(now)) close_all(record);
  }

  /// More is there that could not be fed yet: an open record waits for it.
  void more_is_coming(MonoTime now) { fed_ = now; }

  /// Goes on behind a loss; finish() first.
  void skip_to(FileOffset offset) { lines_.skip_to(offset); }

 private:
  /// Lines that are one record for all that is known.
  struct Open {
    FileOffset start;
    std::string text;
    MultilineRule::State state = 0;
    struct Undecided {
      FileOffset start;
      FileOffset end;
      std::string text;
    };
    std::optional<Undecided> undecided{};
  };

  bool partial_overdue(MonoTime now, std::optional<Duration> after) const {
    return after && lines_.has_partial() && now - lines_.partial_since() >= *after;
  }
  bool open_overdue(MonoTime now) const { return open_ && now - fed_ >= context_->rules.multiline_timeout; }

  template <class Record>
  auto each_line(const Record& record) {
    return [this, &record](FileOffset offset, std::string_view raw) {
      const std::string_view text = decode(offset, raw);
      if (context_->rules.multiline == nullptr) {
        hand_out(offset, text, record);
      } else {
        join(offset, lines_.done(), text, record);
      }
    };
  }

  /// Borrows from `raw` or from the context.
  std::string_view decode(FileOffset offset, std::string_view raw) {
    constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
    if (lines_.encoding() == TextEncoding::kPlain) return raw;
    std::string& decoded = context_->decoded;
    decoded.clear();
    context_->counters.characters_replaced += append_utf8(decoded, lines_.encoding(), raw);
    std::string_view text(decoded);
    const bool marked = offset.raw == 0 && lines_.encoding() != TextEncoding::kLatin1;
    if (marked && text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
    return text;
  }

  template <class Record>
  void join(FileOffset start, FileOffset end, std::string_view line, const Record& record) {
    const MultilineRule& rule = *context_->rules.multiline;
    while (open_) {
      const auto verdict = rule.next(open_->state, line);
      const bool fits = end.raw - open_->start.raw <= context_->rules.cut.max_bytes;
      if (verdict != MultilineRule::Verdict::kBegins && fits) {
        if (verdict == MultilineRule::Verdict::kUndecided) {
          open_->undecided = {start, end, std::string(line)};
          return;
        }
        if (open_->undecided) append_line(std::exchange(open_->undecided, std::nullopt)->text);
        return append_line(line);
      }
      if (verdict != MultilineRule::Verdict::kBegins) ++context_->counters.records_split;
      close(record);
    }
    open_ = Open{start, std::string(line), rule.begin(line)};
  }
  void append_line(std::string_view line) {
    open_->text += '\n';
    open_->text += line;
  }

  /// Hands out the open record. A line that was undecided then begins the next one.
  template <class Record>
  void close(const Record& record) {
    const Open closed = *std::exchange(open_, std::nullopt);
    if (const auto& next = closed.undecided) {
      open_ = Open{next->start, next->text, context_->rules.multiline->begin(next->text)};
    }
    hand_out(closed.start, closed.text, record);
  }
  template <class Record>
  void close_all(const Record& record) {
    while (open_) close(record);
  }

  template <class Record>
  void hand_out(FileOffset offset, std::string_view text, const Record& record) {
    const RecordFilter* filter = context_->rules.filter.get();
    if (filter == nullptr || filter->takes(text)) return record(offset, text);
    ++context_->counters.records_filtered;
  }

  RecordContext* context_;
  LineAssembler lines_;
  std::optional<Open> open_;
  MonoTime fed_{};
};

}  // namespace fantail
