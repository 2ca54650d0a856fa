#pragma once

#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/clock.h"
#include "common/base/digest.h"
#include "common/base/types.h"

namespace fantail {

/// Cuts one stream into lines. A line longer than `max_line_bytes` is handed out in pieces of that size, each as a
/// line; so at most that much of an unfinished line is held. What is fed at once must not be longer.
class LineAssembler {
 public:
  explicit LineAssembler(FileOffset start, std::size_t max_line_bytes = 1024 * 1024)
      : done_(start), max_line_bytes_(max_line_bytes) {}

  /// Everything below was handed out as whole lines (newline included).
  FileOffset done() const { return done_; }
  bool has_partial() const { return !partial_.empty(); }
  /// When the unfinished line last grew.
  MonoTime partial_since() const { return partial_since_; }

  /// Calls `line(offset, text)` for each line that `bytes` completes; `text` borrows.
  template <class Line>
  void feed(std::span<const std::byte> bytes, MonoTime now, const Line& line) {
    std::string_view rest = as_text(bytes);
    while (!rest.empty()) {
      const void* newline = std::memchr(rest.data(), '\n', rest.size());
      if (newline == nullptr) {
        keep(rest, now, line);
        return;
      }
      const auto length = static_cast<std::size_t>(static_cast<const char*>(newline) - rest.data());
      if (partial_.empty() && length <= max_line_bytes_) {
        line(done_, rest.substr(0, length));
        done_ = done_ + length + 1;
      } else {
        keep(rest.substr(0, length), now, line);
        line(done_, std::string_view(partial_));
        done_ = done_ + partial_.size() + 1;
        partial_.clear();
      }
      rest.remove_prefix(length + 1);
    }
  }

  /// The same, but whole runs of lines at once: `run(text)` gets bytes that end with a newline. For output that is the
  /// stream's own.
  template <class Run>
  void feed_runs(std::span<const std::byte> bytes, MonoTime now, const Run& run) {
    std::string_view text = as_text(bytes);
    const void* newline = ::memrchr(text.data(), '\n', text.size());
    const auto as_line = [&](FileOffset, std::string_view piece) {
      run(piece);
      run("\n");
    };
    if (newline == nullptr) return keep(text, now, as_line);
    if (partial_.size() + text.size() > max_line_bytes_) {  // then the line that began before may be too long
      const auto rest_of_line = text.substr(0, text.find('\n'));
      if (partial_.size() + rest_of_line.size() > max_line_bytes_) {
        keep(rest_of_line, now, as_line);
        text.remove_prefix(rest_of_line.size());
      }
    }
    const auto length = static_cast<std::size_t>(static_cast<const char*>(newline) - text.data()) + 1;
    if (!partial_.empty()) run(std::string_view(partial_));
    run(text.substr(0, length));
    done_ = done_ + partial_.size() + length;
    partial_.clear();
    const auto rest = text.substr(length);
    if (!rest.empty()) keep(rest, now, [](FileOffset, std::string_view) {});  // shorter than a chunk: below the bound
  }

  /// Hands out the unfinished line as it is: no more of it will come, or not soon.
  template <class Line>
  void finish(const Line& line) {
    if (partial_.empty()) return;
    line(done_, std::string_view(partial_));
    done_ = done_ + partial_.size();
    partial_.clear();
  }

  /// Goes on behind a loss; finish() first.
  void skip_to(FileOffset offset) { done_ = offset; }

 private:
  template <class Line>
  void keep(std::string_view text, MonoTime now, const Line& line) {
    partial_since_ = now;
    while (partial_.size() + text.size() > max_line_bytes_) {
      const std::size_t room = max_line_bytes_ - partial_.size();
      partial_ += text.substr(0, room);
      text.remove_prefix(room);
      line(done_, std::string_view(partial_));
      done_ = done_ + partial_.size();
      partial_.clear();
    }
    partial_ += text;
  }

  FileOffset done_;
  std::size_t max_line_bytes_;
  std::string partial_;
  MonoTime partial_since_{};
};

}  // namespace fantail
