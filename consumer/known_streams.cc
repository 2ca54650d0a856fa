#include "consumer/known_streams.h"

#include <algorithm>

#include "common/base/log.h"

namespace fantail {

void KnownStreams::told(NodeId node, const wire::StreamInfo& info) {
  unsaved_.told.insert_or_assign(info.stream, CursorStore::StreamChanges::Told{node, info});
  unsaved_.sealed.erase(info.stream);
}

FileOffset KnownStreams::committed(StreamId stream) const {
  if (sinks_.empty()) return {};
  FileOffset least{UINT64_MAX};
  for (const auto& sink : sinks_) least = std::min(least, store_.cursor(sink, stream).value_or(FileOffset{}));
  return least;
}

std::optional<bool> KnownStreams::tell(NodeId node, std::uint64_t after, StreamsPage& page) {
  const auto more = store_.streams_of(node, after, [&](wire::StreamInfo info) {
    if (!page.has_room()) return false;
    info.committed = info.sent = committed(info.stream);
    info.head = std::max(info.head, info.committed);
    page.add(std::move(info));
    return true;
  });
  if (!more) {
    log::error("cannot tell a producer of its streams, it will ask again", {{"error", more.error()}});
    return std::nullopt;
  }
  return *more;
}

}  // namespace fantail
