#include "common/stream/stream_name.h"

#include <algorithm>

#include "common/base/options.h"

namespace fantail {
namespace {

constexpr std::size_t kLeastIdDigits = 8;
constexpr std::size_t kCandidatesTold = 10;

bool is_id(std::string_view name) {
  return name.size() >= kLeastIdDigits && name.size() <= 32 &&
         std::all_of(name.begin(), name.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

std::string list(const std::vector<const NamedStream*>& streams) {
  std::string out;
  for (std::size_t i = 0; i < std::min(streams.size(), kCandidatesTold); ++i) {
    out += "\n  " + to_string(streams[i]->stream) + "  " + printable(streams[i]->current_path);
  }
  if (streams.size() > kCandidatesTold) {
    out += "\n  and " + std::to_string(streams.size() - kCandidatesTold) + " more";
  }
  return out;
}

}  // namespace

Result<StreamId> find_by_name(std::string_view name, const std::vector<NamedStream>& streams) {
  const auto which = [&](const auto& is_meant) {
    std::vector<const NamedStream*> found;
    for (const NamedStream& stream : streams) {
      if (is_meant(stream)) found.push_back(&stream);
    }
    return found;
  };
  auto found = which([&](const NamedStream& s) { return s.current_path == name; });
  if (found.empty()) found = which([&](const NamedStream& s) { return s.path == name; });
  if (found.empty() && is_id(name)) {
    found = which([&](const NamedStream& s) { return to_string(s.stream).starts_with(name); });
  }
  const std::string quoted = "'" + printable(name) + "'";
  if (found.empty()) {
    // A name without its directory is what people try first.
    const auto similar =
        which([&](const NamedStream& s) { return !name.empty() && s.path.find(name) != std::string::npos; });
    return fail(ErrorCode::kNotFound,
                "there is no stream " + quoted +
                    "; give it an absolute path or at least 8 digits of the id, as status shows them" +
                    (similar.empty() ? "" : "; there are" + list(similar)));
  }
  if (found.size() > 1) {
    return fail(ErrorCode::kInvalid, quoted + " may be one of several streams; name it by its id:" + list(found));
  }
  return found.front()->stream;
}

}  // namespace fantail
