#include "state/json.h"

#include <algorithm>

#include "common/base/options.h"

namespace fantail::state {

// The parser itself has no limit.
bool deeper_than(std::string_view text, std::size_t limit) {
  std::size_t depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
      continue;
    }
    if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > limit) return true;
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return false;
}

namespace {

/// What the library says, without its own numbering.
std::string sentence(const char* what) {
  const std::string_view whole = what;
  const auto end = whole.find("] ");
  std::string text;
  // It quotes what it could not read, which may be no text.
  for (const char c : end == std::string_view::npos ? whole : whole.substr(end + 2)) {
    text += static_cast<unsigned char>(c) < 0x80 ? printable({&c, 1}) : std::string("?");
  }
  return text;
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::size_t max_depth) {
  if (deeper_than(text, max_depth)) {
    return fail(ErrorCode::kInvalid, "more than " + std::to_string(max_depth) + " levels of arrays and objects");
  }
  try {
    return Json::parse(text);
  } catch (const Json::exception& e) {
    return fail(ErrorCode::kInvalid, "not valid JSON: " + sentence(e.what()));
  }
}

std::string to_text(const Json& value) {
  return value.is_string() ? json_string(value.get_ref<const std::string&>()) : value.dump();
}

std::string json_string(std::string_view text) {
  // Nearly all keys and texts need no escapes: a serializer of the library costs more than the rest of a small request.
  const bool plain =
      std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c != '"' && c != '\\' && c != 0x7f; });
  if (!plain) return Json(text).dump();
  std::string out;
  out.reserve(text.size() + 2);
  out += '"';
  out += text;
  out += '"';
  return out;
}

bool is_truthy(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null: return false;
    case Json::value_t::boolean: return value.get<bool>();
    case Json::value_t::number_integer: return value.get<std::int64_t>() != 0;
    case Json::value_t::number_unsigned: return value.get<std::uint64_t>() != 0;
    case Json::value_t::number_float: return value.get<double>() != 0;
    case Json::value_t::string: return !value.get_ref<const std::string&>().empty();
    default: return !value.empty();
  }
}

}  // namespace fantail::state
