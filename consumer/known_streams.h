#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/stream/stream_subscriber.h"
#include "consumer/cursor_store.h"

namespace fantail {

/// What this consumer keeps of the streams themselves, beside how far it has got: which file of which node is behind
/// each. A producer that lost its registry asks for it. Kept in the cursor store, written with the cursors. One thread.
class KnownStreams {
 public:
  /// `sinks`: keys of all sinks; a stream is committed as far as each of them has it.
  KnownStreams(CursorStore& store, std::vector<std::string> sinks) : store_(store), sinks_(std::move(sinks)) {}

  /// `node` told of the stream, for the first time or again.
  void told(NodeId node, const wire::StreamInfo& info);
  void sealed(StreamId stream, FileOffset final_length) { unsaved_.sealed[stream] = final_length; }

  /// For the next save of the cursor store.
  const CursorStore::StreamChanges& unsaved() const { return unsaved_; }
  void saved() { unsaved_ = {}; }

  /// As StreamReceiver::tell_known.
  std::optional<bool> tell(NodeId node, std::uint64_t after, StreamsPage& page);

 private:
  FileOffset committed(StreamId stream) const;

  CursorStore& store_;
  std::vector<std::string> sinks_;
  CursorStore::StreamChanges unsaved_;
};

}  // namespace fantail
