#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/options.h"

namespace fantail {

/// What the commands that show state can be told.
struct StatusOptions {
  std::string state_dir;  ///< empty: the default of the system
  bool json = false;
  bool metrics = false;
  std::uint64_t limit = 100;  ///< lines for people; 0: all
  std::vector<std::string> patterns;

  /// `with_metrics`: the command has them.
  void describe(OptionSet& options, bool with_metrics);
  std::vector<std::string> problems() const;
  /// No pattern, or one that is a shell pattern (fnmatch) of one of its paths or the beginning of its id.
  bool shows(std::string_view id, const std::string& path, const std::string& other_path = {}) const;
  /// What to say of lines left out; empty when there are none.
  std::string rest(std::size_t all) const;
};

/// Writes to standard output at once, whole; the exit code.
int write_out(const std::string& text);

}  // namespace fantail
