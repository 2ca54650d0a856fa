#include "common/stream/fetch_server.h"

#include <algorithm>
#include <vector>

namespace fantail {
namespace {

constexpr std::size_t kMaxQueuedPerPeer = 1024;
constexpr std::size_t kBytesPerPeerAndTurn = 1024 * 1024;
constexpr std::size_t kBytesOut = 16 * 1024 * 1024;         // on the way out, all peers
constexpr std::size_t kLeastBytesOutPerPeer = 1024 * 1024;  // with many peers it is more in all
constexpr std::size_t kBuffersKeptPerPeer = 4;

}  // namespace

FetchServer::FetchServer(std::uint32_t chunk_bytes, PublishedStreams& streams, ControlPort& port, Callbacks callbacks)
    : chunk_bytes_(chunk_bytes), streams_(streams), port_(port), callbacks_(std::move(callbacks)) {}

void FetchServer::add(PeerId peer, const wire::Fetch& fetch) {
  ++counters_.requests;
  auto& queue = queues_[peer];
  // Asked again because the answer stays out: what is under way goes on, for the later request.
  const auto waiting = std::find_if(queue.begin(), queue.end(), [&](const Queued& q) {
    return q.under_way && q.stream == fetch.stream && q.range.from == fetch.range.from;
  });
  if (waiting != queue.end()) {
    static_cast<wire::Fetch&>(*waiting) = fetch;
    return;
  }
  if (queue.size() >= kMaxQueuedPerPeer) {
    ++counters_.refused_queue_full;
    return;
  }
  queue.push_back(Queued{fetch});
  pools_.try_emplace(peer, chunk_bytes_, kBuffersKeptPerPeer);
}

void FetchServer::forget(PeerId peer) {
  queues_.erase(peer);
  pools_.erase(peer);  // buffers that are still out know where they belong
}

std::size_t FetchServer::share() const {
  return std::max(kLeastBytesOutPerPeer, kBytesOut / std::max<std::size_t>(pools_.size(), 1));
}

std::size_t FetchServer::turn(MonoTime now) {
  std::size_t total = 0;
  std::vector<PeerId> peers;
  peers.reserve(queues_.size());
  for (const auto& [peer, queue] : queues_) peers.push_back(peer);
  // Who comes first has what the wire takes now; so everybody does in turn.
  std::rotate(peers.begin(), std::upper_bound(peers.begin(), peers.end(), served_first_), peers.end());
  if (!peers.empty()) served_first_ = peers.front();
  for (const PeerId peer : peers) {
    std::size_t bytes = 0;
    FramePool& pool = pools_.at(peer);
    while (bytes < kBytesPerPeerAndTurn && pool.bytes_out() < share()) {
      const auto queue = queues_.find(peer);
      if (queue == queues_.end()) break;
      const Step step = serve(peer, queue->second.front(), pool, bytes, now);
      if (step == Step::kWait) break;
      if (step == Step::kLater) {
        // Its work is done for this turn; others come first in the next.
        std::rotate(queue->second.begin(), queue->second.begin() + 1, queue->second.end());
        ++total;
        break;
      }
      if (step != Step::kFinished) continue;
      queue->second.pop_front();
      ++total;
      if (queue->second.empty()) queues_.erase(queue);
    }
    total += bytes;
  }
  return total;
}

FetchServer::Step FetchServer::end(PeerId peer, const wire::Fetch& fetch, FileOffset to) {
  return port_.send(peer, encoder_.fetch_end({fetch.request, fetch.stream, to})) ? Step::kFinished : Step::kWait;
}

FetchServer::Step FetchServer::unavailable(PeerId peer, const wire::Fetch& fetch, FileOffset to,
                                           wire::LossReason reason) {
  const ByteRange range{fetch.range.from, to};
  if (!port_.send(peer, encoder_.unavailable({fetch.request, fetch.stream, range, reason}))) return Step::kWait;
  counters_.unavailable_bytes += range.bytes();
  return Step::kFinished;
}

/// Sends the next piece of one fetch and moves its `range.from` on.
FetchServer::Step FetchServer::serve(PeerId peer, Queued& fetch, FramePool& pool, std::size_t& bytes, MonoTime now) {
  PublishedStream* stream = streams_.find(fetch.stream);
  if (stream == nullptr) return unavailable(peer, fetch, fetch.range.to, wire::LossReason::kStreamUnknown);
  const FileOffset to = std::min(fetch.range.to, stream->info.head);
  if (fetch.range.from >= to) return end(peer, fetch, fetch.range.from);
  if (fetch.range.from < stream->info.base) {
    return unavailable(peer, fetch, std::min(fetch.range.to, stream->info.base), wire::LossReason::kUnknown);
  }
  if (stream->source == nullptr) return unavailable(peer, fetch, to, stream->gone);

  const FileOffset readable = std::min(to, stream->lost_from.value_or(to));
  if (fetch.range.from >= readable) return unavailable(peer, fetch, to, stream->gone);

  FramePool::Buffer buffer = pool.take();
  const auto want = static_cast<std::size_t>(
      std::min<std::uint64_t>({readable - fetch.range.from, chunk_bytes_, buffer.bytes().size()}));
  const auto n = stream->source->read_at(fetch.range.from, buffer.bytes().first(want));
  if (!n) {
    if (n.error().code == ErrorCode::kReplaced) {
      callbacks_.broken(*stream, n.error());
      stream = streams_.find(fetch.stream);
      const bool recovered = stream != nullptr && stream->source != nullptr;
      if (recovered) return Step::kWait;
      return unavailable(peer, fetch, to, stream == nullptr ? wire::LossReason::kTruncated : stream->gone);
    }
    fetch.under_way = n.error().code == ErrorCode::kWouldBlock;
    if (fetch.under_way) return Step::kLater;
    if (const auto count = read_error_log_.occurred(now)) {
      log::warn("cannot read for a fetch, the consumer will ask again",
                {{"stream", fetch.stream}, {"path", stream->info.path}, {"error", n.error()}, {"count", *count}});
    }
    return end(peer, fetch, fetch.range.from);
  }
  fetch.under_way = false;
  if (*n == 0) return end(peer, fetch, fetch.range.from);

  wire::FetchData data;
  data.request = fetch.request;
  data.chunk.stream = fetch.stream;
  data.chunk.offset = fetch.range.from;
  data.chunk.raw_length = static_cast<std::uint32_t>(*n);
  data.chunk.read_time = wall_now();
  Frame payload = callbacks_.to_payload(data.chunk, std::move(buffer), pool);
  const auto header = encoder_.fetch_data(data, payload.bytes());
  if (!port_.send(peer, header, std::move(payload))) return Step::kWait;
  bytes += *n;
  counters_.bytes_served += *n;
  fetch.range.from = fetch.range.from + *n;
  return fetch.range.from >= to ? end(peer, fetch, to) : Step::kServed;
}

}  // namespace fantail
