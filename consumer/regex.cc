#include "consumer/regex.h"

#include <re2/re2.h>

#include "common/base/options.h"

namespace fantail {

Result<Regex> Regex::compile(std::string_view option, const std::string& text) {
  const std::string what = std::string(option) + " '" + printable(text) + "': ";
  if (text.empty()) return fail(ErrorCode::kInvalid, what + "is found in every line; give a regular expression");
  RE2::Options options;
  options.set_log_errors(false);
  auto regex = std::make_shared<const RE2>(text, options);
  if (!regex->ok()) {
    return fail(ErrorCode::kInvalid, what + "is no regular expression: " + printable(regex->error()) +
                                         "; it takes the syntax of RE2, where \\ makes a character literal");
  }
  return Regex(std::move(regex));
}

bool Regex::found_in(std::string_view text) const {
  return RE2::PartialMatch(re2::StringPiece(text.data(), text.size()), *regex_);
}

}  // namespace fantail
