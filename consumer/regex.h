#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "common/base/result.h"

namespace re2 {
class RE2;
}

namespace fantail {

/// A regular expression of RE2 that is looked for in text. Takes time that is linear in the text, whatever it is.
/// Copies share one.
class Regex {
 public:
  /// `option` is the flag that it comes from, for the error.
  static Result<Regex> compile(std::string_view option, const std::string& text);
  bool found_in(std::string_view text) const;

 private:
  explicit Regex(std::shared_ptr<const re2::RE2> regex) : regex_(std::move(regex)) {}
  std::shared_ptr<const re2::RE2> regex_;
};

}  // namespace fantail
