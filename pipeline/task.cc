#include "pipeline/task.h"

#include <algorithm>

#include "common/base/options.h"

namespace fantail::pipeline {

Status check_task_name(std::string_view name) {
  constexpr std::size_t kMost = 64;
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  };
  if (name.empty() || name.size() > kMost || name.front() == '.' || !std::all_of(name.begin(), name.end(), good)) {
    return fail(ErrorCode::kInvalid, "task '" + printable(name) +
                                         "': a name is of 1 to 64 letters, digits, '.', '_' and '-', and does not "
                                         "begin with '.'");
  }
  return {};
}

}  // namespace fantail::pipeline
