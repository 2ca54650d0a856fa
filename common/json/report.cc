#include "common/json/report.h"

#include <array>
#include <cstdio>

#include "common/base/text.h"
#include "common/json/json.h"

namespace fantail {

void put_text(Json& object, const std::string& key, std::string_view text) {
  if (is_utf8(text)) {
    object[key] = text;
    return;
  }
  std::string encoded;
  append_base64(encoded, text);
  object[key + "_base64"] = encoded;
}

std::string text_in(const Json& object, const std::string& key) {
  if (const auto plain = object.find(key); plain != object.end()) return plain->get<std::string>();
  const auto encoded = object.find(key + "_base64");
  return encoded == object.end() ? std::string() : from_base64(encoded->get<std::string>()).value_or("");
}

void MetricsText::head(const std::string& name, std::string_view type, std::string_view help) {
  text_.append("# HELP ").append(name).append(" ").append(help).append("\n");
  text_.append("# TYPE ").append(name).append(" ").append(type).append("\n");
}

void MetricsText::value(const std::string& name, const Labels& labels, double value) {
  text_ += name;
  char before = '{';
  for (const auto& [label, text] : labels) {
    text_ += before;
    text_ += label + "=\"";
    for (const char c : text) {
      if (c == '\n') {
        text_ += "\\n";
        continue;
      }
      if (c == '"' || c == '\\') text_ += '\\';
      text_ += c;
    }
    text_ += '"';
    before = ',';
  }
  if (!labels.empty()) text_ += '}';
  std::array<char, 64> number{};
  std::snprintf(number.data(), number.size(), " %.17g\n", value);
  text_ += number.data();
}

}  // namespace fantail
