#pragma once

#include <cstddef>
#include <span>

#include "common/base/result.h"
#include "common/base/types.h"

namespace fantail {

/// Bytes that can be read again at any offset: a tailed file, a journal. The file is the queue.
class StreamSource {
 public:
  virtual ~StreamSource() = default;

  /// Reads from `offset` until `buffer` is full or the stream's present end, whichever comes first, and returns how
  /// many bytes it read. kReplaced: what is there now is not this stream any more, nothing of it may be used and
  /// nothing more will come. kWouldBlock: it is on its way there, ask again soon. Other errors may pass; the reader
  /// tries again.
  virtual Result<std::size_t> read_at(FileOffset offset, std::span<std::byte> buffer) = 0;

  /// Bytes below `sent` were handed to the broadcast; `last` are the final ones of them (at most a chunk). Sources that
  /// recognise their file by what was read before the cursor remember them here.
  virtual void mark_sent(FileOffset sent, std::span<const std::byte> last) = 0;
};

}  // namespace fantail
