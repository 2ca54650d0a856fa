#pragma once

#include <cstddef>
#include <utility>

#include "common/wire/messages.h"

namespace fantail {

/// Fills a Streams message with as many descriptions as one message holds: long paths make smaller pages.
class StreamsPage {
 public:
  explicit StreamsPage(bool listing = false) { streams_.listing = listing; }

  /// There is room for one more, however long it is.
  bool has_room() const { return streams_.streams.size() < kMaxStreams && bytes_ < kMaxBytes; }
  void add(wire::StreamInfo info) {
    bytes_ += kBytesBesideText + info.path.size() + info.topic.size();
    streams_.streams.push_back(std::move(info));
  }
  /// `more`: of a listing, that it goes on behind the last one here.
  const wire::Streams& message(bool more = false) {
    streams_.more = more;
    return streams_;
  }

 private:
  static constexpr std::size_t kMaxStreams = 1024;
  // Room for one more with the longest path and topic, and for what is around them.
  static constexpr std::size_t kMaxBytes = wire::kMaxHeaderBytes - 16 * 1024;
  static constexpr std::size_t kBytesBesideText = 208;  // at most

  wire::Streams streams_;
  std::size_t bytes_ = 0;
};

}  // namespace fantail
