#pragma once

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/clock.h"
#include "common/base/digest.h"
#include "common/base/types.h"
#include "consumer/line_rules.h"

namespace fantail {

/// Cuts one stream into lines, as the bytes of the stream. Of an unfinished line about `max_bytes` are held at most.
/// How the bytes come in pieces makes no difference, and who begins anew at any done() gets the same lines from there.
class LineAssembler {
 public:
  /// `counters` is borrowed.
  LineAssembler(FileOffset start, const LineCut& cut, RecordCounters& counters) : cut_(cut), counters_(&counters) {
    skip_to(start);
  }

  /// Everything below was handed out as whole lines (newline included), or left out because it was too long.
  FileOffset done() const { return done_; }
  bool has_partial() const { return !partial_.empty() || dropped_ > 0 || half_unit_; }
  /// When the unfinished line last grew.
  MonoTime partial_since() const { return partial_since_; }
  /// kUtf16 until the byte order is known, which it is when there is a line.
  TextEncoding encoding() const { return cut_.encoding; }

  /// Calls `line(offset, text)` for each line that `bytes` completes, without its end; `text` borrows. In the call
  /// done() is behind that line already.
  template <class Line>
  void feed(std::span<const std::byte> bytes, MonoTime now, const Line& line) {
    std::string_view rest = as_text(bytes);
    if (rest.empty()) return;
    partial_since_ = now;
    if (std::exchange(misaligned_, false)) {
      rest.remove_prefix(1);
      done_ = done_ + 1;
    }
    if (half_unit_ && !rest.empty()) {
      const char unit[2] = {*std::exchange(half_unit_, std::nullopt), rest.front()};
      rest.remove_prefix(1);
      feed_units({unit, 2}, line);
    }
    const std::size_t half = rest.size() % unit_bytes(cut_.encoding);
    feed_units(rest.substr(0, rest.size() - half), line);
    if (half > 0) half_unit_ = rest.back();
  }

  /// The same with the default cut, but whole runs of lines at once: `run(text)` gets bytes that end with a newline.
  /// For output that is the stream's own. What is fed at once must not be longer than `max_bytes`.
  template <class Run>
  void feed_runs(std::span<const std::byte> bytes, MonoTime now, const Run& run) {
    std::string_view text = as_text(bytes);
    const void* newline = ::memrchr(text.data(), '\n', text.size());
    if (newline == nullptr) return keep_run(text, now, run);
    if (partial_.size() + text.size() > cut_.max_bytes) {  // then the line that began before may be too long
      const auto rest_of_line = text.substr(0, text.find('\n'));
      if (partial_.size() + rest_of_line.size() > cut_.max_bytes) {
        keep_run(rest_of_line, now, run);
        text.remove_prefix(rest_of_line.size());
      }
    }
    const auto length = static_cast<std::size_t>(static_cast<const char*>(newline) - text.data()) + 1;
    if (!partial_.empty()) run(std::string_view(partial_));
    run(text.substr(0, length));
    done_ = done_ + partial_.size() + length;
    partial_.clear();
    const auto rest = text.substr(length);
    if (!rest.empty()) keep_run(rest, now, [](std::string_view) {});  // shorter than a chunk: below the bound
  }

  /// Hands out the unfinished line as it is: no more of it will come.
  template <class Line>
  void finish(const Line& line) {
    if (half_unit_) {
      partial_ += *half_unit_;
      half_unit_.reset();
    }
    if (partial_.empty() && dropped_ == 0) return;
    if (cut_.encoding == TextEncoding::kUtf16) cut_.encoding = byte_order_guessed(partial_);
    complete(partial_, 0, line);
    partial_.clear();
  }

  /// Hands out what is there of an unfinished line, because more will not come soon. Of one that is too long already
  /// nothing.
  template <class Line>
  void flush_partial(const Line& line) {
    if (dropped_ > 0 || cut_.encoding == TextEncoding::kUtf16) return;
    std::string_view text(partial_);
    if (cut_.strip_carriage_return) text = without_carriage_return(cut_.encoding, text);
    text = text.substr(0, whole_characters(cut_.encoding, text, text.size()));
    if (text.empty()) return;
    const std::size_t length = text.size();
    const FileOffset start = std::exchange(done_, done_ + length);
    line(start, text);
    partial_.erase(0, length);
  }

  /// Goes on behind a loss; finish() first.
  void skip_to(FileOffset offset) {
    done_ = offset;
    misaligned_ = offset.raw % unit_bytes(cut_.encoding) != 0;
  }

 private:
  template <class Line>
  void feed_units(std::string_view text, const Line& line) {
    if (cut_.encoding == TextEncoding::kUtf16) {
      partial_ += text;
      auto order = byte_order_shown(partial_, done_.raw == 0);
      if (!order && partial_.size() > cut_.max_bytes) order = byte_order_guessed(partial_);
      if (!order) return;
      cut_.encoding = *order;
      const std::string held = std::exchange(partial_, {});
      return feed_units(held, line);
    }
    const std::size_t newline_bytes = unit_bytes(cut_.encoding);
    while (!text.empty()) {
      const std::size_t end = find_newline(cut_.encoding, text);
      if (end == std::string_view::npos) return keep(text, line);
      if (!has_partial()) {
        complete(text.substr(0, end), newline_bytes, line);
      } else {
        keep(text.substr(0, end), line);
        complete(partial_, newline_bytes, line);
        partial_.clear();
      }
      text.remove_prefix(end + newline_bytes);
    }
  }

  /// `text` and the `dropped_` bytes behind it are a line.
  template <class Line>
  void complete(std::string_view text, std::size_t newline_bytes, const Line& line) {
    const FileOffset end = done_ + text.size() + dropped_ + newline_bytes;
    const bool cut_short = std::exchange(dropped_, 0) > 0;
    if (cut_.strip_carriage_return && !cut_short) text = without_carriage_return(cut_.encoding, text);
    if (cut_.long_lines == LongLines::kSplit) text.remove_prefix(split(text, 0, line));
    if (cut_short || text.size() > cut_.max_bytes) {
      if (cut_.long_lines == LongLines::kSkip) {
        ++counters_->lines_skipped;
        done_ = end;
        return;
      }
      ++counters_->lines_truncated;
      text = text.substr(0, whole_characters(cut_.encoding, text, cut_.max_bytes));
    }
    line(std::exchange(done_, end), text);
  }

  /// Hands out pieces while more than `max_bytes` and `slack` are left. Returns the length of the pieces.
  template <class Line>
  std::size_t split(std::string_view text, std::size_t slack, const Line& line) {
    std::size_t at = 0;
    while (text.size() - at > cut_.max_bytes + slack) {
      const std::size_t length = whole_characters(cut_.encoding, text.substr(at), cut_.max_bytes);
      ++counters_->lines_split;
      line(std::exchange(done_, done_ + length), text.substr(at, length));
      at += length;
    }
    return at;
  }

  template <class Line>
  void keep(std::string_view text, const Line& line) {
    if (dropped_ > 0) return drop(text, line);
    partial_ += text;
    // A carriage return before the newline does not count.
    const std::size_t slack = cut_.strip_carriage_return ? unit_bytes(cut_.encoding) : 0;
    if (partial_.size() <= cut_.max_bytes + slack) return;
    if (cut_.long_lines == LongLines::kSplit) {
      partial_.erase(0, split(partial_, slack, line));
    } else {
      const bool skip = cut_.long_lines == LongLines::kSkip;
      const std::size_t kept = skip ? 0 : whole_characters(cut_.encoding, partial_, cut_.max_bytes);
      dropped_ = partial_.size() - kept;
      partial_.resize(kept);
    }
  }

  /// The unfinished line is too long already; what goes beyond `max_dropped_bytes` is a line of its own.
  template <class Line>
  void drop(std::string_view text, const Line& line) {
    const std::size_t room = cut_.max_dropped_bytes - partial_.size() - dropped_;
    dropped_ += std::min(room, text.size());
    if (text.size() < room) return;
    complete(partial_, 0, line);
    partial_.clear();
    keep(text.substr(room), line);
  }

  template <class Run>
  void keep_run(std::string_view text, MonoTime now, const Run& run) {
    partial_since_ = now;
    while (partial_.size() + text.size() > cut_.max_bytes) {
      const std::size_t room = cut_.max_bytes - partial_.size();
      partial_ += text.substr(0, room);
      text.remove_prefix(room);
      ++counters_->lines_split;
      run(std::string_view(partial_));
      run("\n");
      done_ = done_ + partial_.size();
      partial_.clear();
    }
    partial_ += text;
  }

  LineCut cut_;
  RecordCounters* counters_;
  FileOffset done_;
  std::string partial_;
  std::size_t dropped_ = 0;        ///< bytes of the unfinished line behind partial_: it is too long already
  std::optional<char> half_unit_;  ///< behind that
  bool misaligned_ = false;        ///< the next byte is the second of a unit
  MonoTime partial_since_{};
};

}  // namespace fantail
