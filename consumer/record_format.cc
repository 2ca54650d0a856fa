#include "consumer/record_format.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "common/base/text.h"
#include "consumer/mirror_sink.h"

namespace fantail {
namespace {

struct Split {
  std::string literal;
  std::string field;  ///< empty at the end
};

Result<std::vector<Split>> split_template(std::string_view text, std::initializer_list<std::string_view> fields,
                                          const std::string& option) {
  std::vector<Split> out(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\\' && i + 1 < text.size() && (text[i + 1] == 't' || text[i + 1] == 'n')) {
      out.back().literal += text[++i] == 't' ? '\t' : '\n';
    } else if ((c == '{' || c == '}') && i + 1 < text.size() && text[i + 1] == c) {
      out.back().literal += c;
      ++i;
    } else if (c == '{') {
      const auto end = text.find('}', i);
      const std::string_view name = text.substr(i + 1, end == std::string_view::npos ? end : end - i - 1);
      if (end == std::string_view::npos) {
        return fail(ErrorCode::kInvalid,
                    option + " '" + std::string(text) + "': '{' without '}'; write {{ for a brace");
      }
      if (std::find(fields.begin(), fields.end(), name) == fields.end()) {
        std::string known;
        for (const auto f : fields) known += " {" + std::string(f) + "}";
        return fail(ErrorCode::kInvalid, option + " '" + std::string(text) + "': unknown field '{" + std::string(name) +
                                             "}'; there are" + known + " ({{ stands for a brace)");
      }
      out.back().field = name;
      out.emplace_back();
      i = end;
    } else {
      out.back().literal += c;
    }
  }
  return out;
}

void append_number(std::string& out, std::uint64_t value) {
  char digits[20];
  const auto [end, error] = std::to_chars(digits, digits + sizeof digits, value);
  out.append(digits, end);
}

/// Whether a run of 8 bytes needs a closer look: control characters, quote, backslash or anything but ASCII.
bool plain8(const char* at) {
  std::uint64_t v = 0;
  std::memcpy(&v, at, sizeof v);
  constexpr std::uint64_t kOnes = 0x0101010101010101ULL;
  constexpr std::uint64_t kHigh = 0x8080808080808080ULL;
  const auto has_zero = [](std::uint64_t x) { return (x - kOnes) & ~x & kHigh; };
  const std::uint64_t below_space = (v - kOnes * 0x20) & ~v & kHigh;
  return ((v & kHigh) | below_space | has_zero(v ^ (kOnes * '"')) | has_zero(v ^ (kOnes * '\\'))) == 0;
}

void append_json_string(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  const char* at = text.data();
  const char* const end = at + text.size();
  const char* run = at;
  while (at < end) {
    if (end - at >= 8 && plain8(at)) {
      at += 8;
      continue;
    }
    const auto c = static_cast<unsigned char>(*at);
    if (c >= 0x20 && c != '"' && c != '\\') {
      ++at;
      continue;
    }
    out.append(run, at);
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        out += "\\u00";
        out += kHex[c >> 4];
        out += kHex[c & 0xF];
    }
    run = ++at;
  }
  out.append(run, end);
}

void append_json_text(std::string& out, std::string_view key, std::string_view text) {
  const bool utf8 = is_utf8(text);
  out += '"';
  out += key;
  if (!utf8) out += "_base64";
  out += "\":\"";
  if (utf8) {
    append_json_string(out, text);
  } else {
    append_base64(out, text);
  }
  out += '"';
}

}  // namespace

std::string_view basename_of(std::string_view path) {
  const auto slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

Result<RecordFormat> RecordFormat::parse(std::string_view text) {
  RecordFormat out;
  if (text == "raw") return out;
  if (text == "jsonl") {
    out.kind_ = Kind::kJson;
    return out;
  }
  if (text.find('{') == std::string_view::npos) {
    return fail(ErrorCode::kInvalid, "--format '" + std::string(text) +
                                         "': must be raw, jsonl or a template such as '{node} {path} {line}'");
  }
  const auto pieces = split_template(
      text, {"node", "topic", "path", "basename", "offset", "time", "date", "stream", "line"}, "--format");
  if (!pieces) return tl::unexpected(pieces.error());
  out.kind_ = Kind::kTemplate;
  for (const auto& p : *pieces) out.pieces_.push_back({p.literal, p.field});
  return out;
}

RecordFormat::Prepared RecordFormat::prepare(const StreamMeta& stream) const {
  Prepared out;
  out.stream = &stream;
  if (kind_ == Kind::kJson) {
    out.json_prefix = "{";
    append_json_text(out.json_prefix, "node", stream.node_name);
    out.json_prefix += ',';
    append_json_text(out.json_prefix, "topic", stream.topic);
    out.json_prefix += ',';
    append_json_text(out.json_prefix, "path", stream.path);
    out.json_prefix += ",\"stream\":\"" + to_string(stream.stream) + "\",";
  }
  return out;
}

void RecordFormat::append(std::string& out, const Prepared& prepared, FileOffset offset, std::string_view time,
                          std::string_view line) const {
  switch (kind_) {
    case Kind::kRaw: out += line; break;
    case Kind::kJson:
      out += prepared.json_prefix;
      out += "\"offset\":";
      append_number(out, offset.raw);
      out += ",\"time\":\"";
      out += time;
      out += "\",";
      append_json_text(out, "line", line);
      out += '}';
      break;
    case Kind::kTemplate:
      for (const Piece& piece : pieces_) {
        out += piece.literal;
        const StreamMeta& s = *prepared.stream;
        if (piece.field.empty()) continue;
        if (piece.field == "line") {
          out += line;
        } else if (piece.field == "node") {
          out += s.node_name;
        } else if (piece.field == "topic") {
          out += s.topic;
        } else if (piece.field == "path") {
          out += s.path;
        } else if (piece.field == "basename") {
          out += basename_of(s.path);
        } else if (piece.field == "offset") {
          append_number(out, offset.raw);
        } else if (piece.field == "time") {
          out += time;
        } else if (piece.field == "date") {
          out += time.substr(0, 10);
        } else if (piece.field == "stream") {
          out += to_string(s.stream);
        }
      }
      break;
  }
  out += '\n';
}

void RecordFormat::append_loss(std::string& out, const Prepared& prepared, ByteRange range, std::string_view time,
                               wire::LossReason reason) const {
  const std::string from = std::to_string(range.from.raw);
  const std::string to = std::to_string(range.to.raw);
  const std::string why(wire::to_string(reason));
  if (kind_ == Kind::kJson) {
    out += prepared.json_prefix + "\"offset\":" + from + ",\"time\":\"" + std::string(time) +
           "\",\"loss\":{\"from\":" + from + ",\"to\":" + to + ",\"reason\":\"" + why + "\"}}\n";
    return;
  }
  const std::string notice = "[fantail: bytes " + from + " to " + to + " of " + prepared.stream->node_name + ":" +
                             prepared.stream->path + " are lost: " + why + "]";
  append(out, prepared, range.from, time, notice);
}

Result<PathTemplate> PathTemplate::parse(std::string_view text) {
  const auto pieces = split_template(text, {"node", "topic", "path", "basename", "date"}, "--output file:");
  if (!pieces) return tl::unexpected(pieces.error());
  PathTemplate out;
  out.text_ = text;
  for (const auto& p : *pieces) {
    out.pieces_.emplace_back(p.literal, p.field);
    out.dated_ = out.dated_ || p.field == "date";
  }
  return out;
}

std::string PathTemplate::expand(const StreamMeta& stream, WallTime time) const {
  const auto name = [](std::string_view value) {
    std::string out = safe_components(value).back();
    return out;
  };
  const auto path = [](std::string_view value) {
    std::string out;
    for (const auto& part : safe_components(value)) out += (out.empty() ? "" : "/") + part;
    return out;
  };
  std::string out;
  for (const auto& [literal, field] : pieces_) {
    out += literal;
    if (field == "node") out += stream.node_dir;
    if (field == "topic") out += path(stream.topic);
    if (field == "path") out += path(stream.path);
    if (field == "basename") out += name(basename_of(stream.path));
    if (field == "date") out += to_date(time);
  }
  return out;
}

}  // namespace fantail
