#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "consumer/multiline.h"
#include "consumer/regex.h"
#include "consumer/text_encoding.h"

namespace fantail {

/// What becomes of a line that is too long: pieces, each as a line; its beginning; nothing.
enum class LongLines : std::uint8_t { kSplit, kTruncate, kSkip };

/// How a stream is cut into lines.
struct LineCut {
  std::size_t max_bytes = 1024 * 1024;  ///< of a line in the stream, without its end
  LongLines long_lines = LongLines::kSplit;
  TextEncoding encoding = TextEncoding::kPlain;
  bool strip_carriage_return = false;  ///< at the end of a line
  /// Where a line that is truncated or skipped ends at the latest, so that not more is read again after a crash. More
  /// than `max_bytes` and what is fed at once.
  std::size_t max_dropped_bytes = 64 * 1024 * 1024;
};

/// Which records are taken, by what is found in their text.
struct RecordFilter {
  std::vector<Regex> include;  ///< one of them, when there are any
  std::vector<Regex> exclude;  ///< none of them
  bool takes(std::string_view text) const;
};

/// All that makes records of the bytes of a stream.
struct LineRules {
  LineCut cut;
  std::shared_ptr<const MultilineRule> multiline;  ///< nullptr: each line is a record
  Duration multiline_timeout{};                    ///< a record is whole when nothing came for so long
  std::shared_ptr<const RecordFilter> filter;      ///< nullptr: all are taken

  /// Lines go through as they are, only those that are very long in pieces.
  bool plain() const;
};

/// What the rules did. The consumer's last log line shows it.
struct RecordCounters {
  std::uint64_t lines_split = 0;  ///< cuts where no line ends
  std::uint64_t lines_truncated = 0;
  std::uint64_t lines_skipped = 0;
  std::uint64_t characters_replaced = 0;
  std::uint64_t records_split = 0;  ///< of many lines, that got too long
  std::uint64_t records_filtered = 0;

  RecordCounters& operator+=(const RecordCounters& other);
};

}  // namespace fantail
