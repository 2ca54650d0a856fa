#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "consumer/sink.h"

namespace fantail {

/// How one record becomes output. `raw`: the line; `jsonl`: an object; else a template with {node} {topic} {path}
/// {basename} {offset} {time} {date} {stream} {line}, "{{" for a brace.
class RecordFormat {
 public:
  static Result<RecordFormat> parse(std::string_view text);

  /// Raw records are the stream's own bytes: whole runs of lines can be copied as they are.
  bool raw() const { return kind_ == Kind::kRaw; }

  /// What stays the same for all records of a stream, prepared once.
  struct Prepared {
    const StreamMeta* stream = nullptr;
    std::string json_prefix;
  };
  Prepared prepare(const StreamMeta& stream) const;

  /// Appends `line` (without its newline), which began at `offset`, and a newline.
  void append(std::string& out, const Prepared& prepared, FileOffset offset, std::string_view time,
              std::string_view line) const;
  /// Appends a visible notice of a loss.
  void append_loss(std::string& out, const Prepared& prepared, ByteRange range, std::string_view time,
                   wire::LossReason reason) const;

 private:
  enum class Kind : std::uint8_t { kRaw, kJson, kTemplate };
  struct Piece {
    std::string literal;
    std::string field;
  };
  Kind kind_ = Kind::kRaw;
  std::vector<Piece> pieces_;
};

/// A path with {node} {topic} {path} {basename} {date} in it. Values are made safe: no '/' where a name stands, no
/// "..".
class PathTemplate {
 public:
  static Result<PathTemplate> parse(std::string_view text);
  /// `time` gives {date} (UTC).
  std::string expand(const StreamMeta& stream, WallTime time) const;
  bool dated() const { return dated_; }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  std::vector<std::pair<std::string, std::string>> pieces_;  ///< literal, then field
  bool dated_ = false;
};

}  // namespace fantail
