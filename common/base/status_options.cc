#include "common/base/status_options.h"

#include <fnmatch.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "common/base/program.h"

namespace fantail {
namespace {

constexpr std::size_t kLeastIdDigits = 8;

}  // namespace

void StatusOptions::describe(OptionSet& options, bool with_metrics) {
  options.positional(patterns, "[PATTERN...]",
                     "only streams whose path is like one of these (shell patterns, * takes /), or whose id begins so");
  options.text("state-dir", state_dir, "DIR", "of which program (default: as for the program itself)");
  options.flag("json", json, "one JSON object a line instead of a table");
  if (with_metrics) options.flag("metrics", metrics, "the totals as Prometheus text instead, e.g. for node_exporter");
  options.number("limit", limit, 0, UINT64_MAX, "N", "lines of the table; 0: all");
}

std::vector<std::string> StatusOptions::problems() const {
  if (json && metrics) return {"--json and --metrics: are two forms of the same; choose one"};
  return {};
}

bool StatusOptions::shows(std::string_view id, const std::string& path, const std::string& other_path) const {
  return patterns.empty() || std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
           return ::fnmatch(pattern.c_str(), path.c_str(), 0) == 0 ||
                  ::fnmatch(pattern.c_str(), other_path.c_str(), 0) == 0 ||
                  (pattern.size() >= kLeastIdDigits && id.starts_with(pattern));
         });
}

std::string StatusOptions::rest(std::size_t all) const {
  if (limit == 0 || all <= limit) return {};
  return "... and " + std::to_string(all - limit) + " more: --limit 0 shows all, a PATTERN some\n";
}

int write_out(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return kExitOk;
  std::fprintf(stderr, "cannot write to standard output: %s\n", std::strerror(errno));
  return kExitFailure;
}

}  // namespace fantail
