#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>

#include "common/stream/stream_source.h"
#include "common/wire/messages.h"

namespace fantail {

/// One stream as its publisher sees it.
struct PublishedStream {
  wire::StreamInfo info;                               ///< sent, head and sealed are current
  StreamSource* source = nullptr;                      ///< null: its bytes can not be read any more
  wire::LossReason gone = wire::LossReason::kUnknown;  ///< why, when there is no source
  std::optional<FileOffset> lost_from;                 ///< from there to the head it is lost for `gone`, source or not
  bool queued = false;                                 ///< in the broadcaster's turn order
  bool parked = false;                                 ///< has bytes, but nobody wants its topic
};

/// The streams of one node, by id and in order of creation.
class PublishedStreams {
 public:
  PublishedStream& add(wire::StreamInfo info, StreamSource* source) {
    auto stream = std::make_unique<PublishedStream>();
    stream->info = std::move(info);
    stream->source = source;
    PublishedStream& ref = *stream;
    version_ = std::max(version_, ref.info.sequence);
    by_sequence_[ref.info.sequence] = &ref;
    by_id_[ref.info.stream] = std::move(stream);
    return ref;
  }
  void remove(StreamId id) {
    const auto found = by_id_.find(id);
    if (found == by_id_.end()) return;
    by_sequence_.erase(found->second->info.sequence);
    by_id_.erase(found);
  }
  PublishedStream* find(StreamId id) {
    const auto found = by_id_.find(id);
    return found == by_id_.end() ? nullptr : found->second.get();
  }
  const PublishedStream* find(StreamId id) const { return const_cast<PublishedStreams*>(this)->find(id); }

  /// In order of creation.
  const std::map<std::uint64_t, PublishedStream*>& by_sequence() const { return by_sequence_; }
  /// The sequence of the newest stream there ever was.
  std::uint64_t version() const { return version_; }
  std::size_t size() const { return by_id_.size(); }

 private:
  std::unordered_map<StreamId, std::unique_ptr<PublishedStream>> by_id_;
  std::map<std::uint64_t, PublishedStream*> by_sequence_;
  std::uint64_t version_ = 0;
};

}  // namespace fantail
