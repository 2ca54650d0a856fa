#include "state/json.h"

namespace fantail::state {
namespace {

/// Levels of brackets outside of strings. The parser itself has no limit.
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

/// What the library says, without its own numbering.
std::string sentence(const char* what) {
  std::string text = what;
  const auto end = text.find("] ");
  return end == std::string::npos ? text : text.substr(end + 2);
}

}  // namespace

Result<Json> parse_json(std::string_view text) {
  if (deeper_than(text, kMaxDepth)) {
    return fail(ErrorCode::kInvalid, "more than " + std::to_string(kMaxDepth) + " levels of arrays and objects");
  }
  try {
    return Json::parse(text);
  } catch (const Json::exception& e) {
    return fail(ErrorCode::kInvalid, "not valid JSON: " + sentence(e.what()));
  }
}

std::string to_text(const Json& value) { return value.dump(); }
std::string json_string(std::string_view text) { return Json(text).dump(); }

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
