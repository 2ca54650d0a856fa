#include "common/json/json.h"

#include <simdjson.h>

#include <algorithm>
#include <set>
#include <vector>

#include "common/base/options.h"

namespace fantail {

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

/// What the library says, without its own numbering; it quotes all of what it could not read.
std::string sentence(const char* what) {
  constexpr std::size_t kLongest = 300;
  const std::string_view whole = what;
  const auto end = whole.find("] ");
  std::string text;
  // Which may be no text.
  for (const char c : end == std::string_view::npos ? whole : whole.substr(end + 2)) {
    if (text.size() >= kLongest) return text + "...";
    text += static_cast<unsigned char>(c) < 0x80 ? printable({&c, 1}) : std::string("?");
  }
  return text;
}

}  // namespace

namespace {

constexpr std::size_t kFastBytes = 64 * 1024;  // the fast parser keeps memory in proportion to the largest text

/// The value that the fast parser has read.
Json value_of(simdjson::dom::element element) {
  using simdjson::dom::element_type;
  switch (element.type()) {
    case element_type::ARRAY: {
      Json out = Json::array();
      for (const simdjson::dom::element item : simdjson::dom::array(element)) out.push_back(value_of(item));
      return out;
    }
    case element_type::OBJECT: {
      Json out = Json::object();
      for (const auto [key, value] : simdjson::dom::object(element)) out[std::string(key)] = value_of(value);
      return out;
    }
    case element_type::INT64: {  // everything that is not negative is unsigned with the other library
      const auto number = std::int64_t(element);
      return number < 0 ? Json(number) : Json(static_cast<std::uint64_t>(number));
    }
    case element_type::UINT64: return std::uint64_t(element);
    case element_type::DOUBLE: return double(element);
    case element_type::STRING: return std::string_view(element);
    case element_type::BOOL: return bool(element);
    case element_type::NULL_VALUE: break;
  }
  return nullptr;
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::size_t max_depth) {
  if (deeper_than(text, max_depth)) {
    return fail(ErrorCode::kInvalid, "more than " + std::to_string(max_depth) + " levels of arrays and objects");
  }
  // simdjson reads what is small and good three times as fast. What it refuses (integers beyond 64 bits too) the other
  // one decides about, in its words.
  if (text.size() <= kFastBytes) {
    thread_local simdjson::dom::parser parser;
    simdjson::dom::element root;
    if (parser.parse(text.data(), text.size()).get(root) == simdjson::SUCCESS) return value_of(root);
  }
  try {
    return Json::parse(text);
  } catch (const Json::exception& e) {
    return fail(ErrorCode::kInvalid, "not valid JSON: " + sentence(e.what()));
  }
}

std::optional<std::string> repeated_member(std::string_view text) {
  std::optional<std::string> twice;
  std::vector<std::set<std::string>> names;  // of the objects that are not over
  const auto look = [&](int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) names.emplace_back();
    if (event == Json::parse_event_t::object_end) names.pop_back();
    if (event == Json::parse_event_t::key && !names.back().insert(value).second && !twice) twice = value;
    return true;
  };
  const Json value = Json::parse(text, look, false);
  return twice;
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

}  // namespace fantail
