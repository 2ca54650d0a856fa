#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "producer/recollection.h"
#include "producer/registry.h"

namespace fantail {

/// The files that a producer may take for those of streams that consumers tell of.
struct FilesThere {
  std::map<FileKey, std::string> selected;  ///< found by the patterns
  /// Whether a pattern takes this path: only then its directory may be searched for a file that was renamed there.
  std::function<bool(const std::string& path)> selects;
};

/// What is to be entered into a registry that was lost.
struct Rebuilt {
  std::vector<StreamRecord> streams;   ///< known again, and those that are gone and somebody misses something of
  std::vector<wire::StreamInfo> over;  ///< gone, and everybody has all of it: only to be told that they are complete
  std::uint64_t last_sequence = 0;
  std::size_t recovered = 0;  ///< of `streams`: their file is there
  std::size_t ignored = 0;    ///< told, and not usable
};

/// Which told stream is which file. A file is taken for a stream only if it is the same inode and agrees with
/// everything that any consumer tells of its beginning and its length, by the rule of TailedFile; it is read on from
/// where the consumer stands that is furthest behind. So what a consumer says can neither mix two files nor leave bytes
/// out; the worst that a wrong word does is that a file is sent again as a new stream.
/// `from_end`: streams need not begin at 0, see Selection.
/// `archives`: a stream may be what is in an archive; null where that cannot be.
Rebuilt rebuild(const Recollection& told, const FilesThere& files, bool from_end, ArchiveBudget* archives = nullptr);

}  // namespace fantail
