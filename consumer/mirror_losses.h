#pragma once

#include <optional>
#include <set>
#include <string>

#include "common/wire/messages.h"
#include "consumer/mirror_tree.h"

namespace fantail {

/// The list of the holes in mirrors, `.losses.tsv` beside them: a line each of time, stream, from, to, reason and file,
/// with tabs between. One thread.
class MirrorLosses {
 public:
  explicit MirrorLosses(const MirrorTree& tree) : tree_(tree) {}

  /// A loss that the list has already is told again after a crash: it is not listed twice. All of a line, or nothing.
  Status add(StreamId stream, ByteRange range, wire::LossReason reason, const std::string& file);

 private:
  Status read();
  Status append(const std::string& line);

  const MirrorTree& tree_;
  std::optional<std::set<std::string>> listed_;  ///< read when there is one to add
};

}  // namespace fantail
