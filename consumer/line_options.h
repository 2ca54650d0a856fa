#pragma once

#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/options.h"
#include "common/base/result.h"
#include "consumer/line_rules.h"

namespace fantail {

/// The flags that say what becomes of lines in sinks of lines.
struct LineOptions {
  std::string encoding = "plain";
  std::string crlf = "auto";
  std::string max_line = "1MiB:split";  ///< BYTES[:split|truncate|skip]
  std::string multiline = "none";
  std::string multiline_start;     ///< empty: none
  std::string multiline_continue;  ///< empty: none
  Duration multiline_timeout = 5s;
  std::vector<std::string> include;
  std::vector<std::string> exclude;

  void describe(OptionSet& options);
  std::vector<std::string> problems() const;
  /// The flags that differ from the default.
  std::vector<std::string> given() const;
  /// Only after problems() was empty. `raw`: lines are printed as they are.
  LineRules rules(bool raw) const;

 private:
  Result<LineCut> cut() const;
  Result<std::shared_ptr<const MultilineRule>> multiline_rule() const;
  Result<std::shared_ptr<const RecordFilter>> filter() const;
};

}  // namespace fantail
