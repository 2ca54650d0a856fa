#include "common/stream/broadcaster.h"

#include <algorithm>

#include "common/base/digest.h"

namespace fantail {
namespace {

constexpr std::size_t kBytesPerTurn = 4 * 1024 * 1024;
constexpr std::size_t kLeastPerChunk = 8 * 1024;  // that a chunk counts: tiny files cost calls rather than bytes
constexpr Duration kBlockedRetry = 1ms;
constexpr Duration kReadRetry = 1s;
constexpr std::size_t kWorthCompressing = 256;  // raw bytes; below that a header costs more than zstd saves

std::uint64_t burst_for(const BroadcastConfig& config) {
  // 2 ms worth, so that pacing is smooth at the scale of a receiver's socket buffer.
  return std::max<std::uint64_t>(config.rate_bytes_per_s / 500, 16 * 1024);
}

}  // namespace

Broadcaster::Broadcaster(BroadcastConfig config, PublishedStreams& streams, BroadcastPort& port, FramePool& pool,
                         Callbacks callbacks)
    : config_(config),
      streams_(streams),
      port_(port),
      pool_(pool),
      callbacks_(std::move(callbacks)),
      compressor_(config.compression.level),
      bucket_(config.rate_bytes_per_s, burst_for(config)),
      patience_(config.patience),
      sizer_(config.chunk_bytes, config.adapt_to_loss),
      order_(config.limits, config.fair) {}

void Broadcaster::enqueue(PublishedStream& stream) {
  if (stream.queued || stream.parked || stream.info.sent >= stream.info.head) return;
  stream.queued = true;
  order_.push(stream.info.stream, stream.info.topic);
}

void Broadcaster::unpark() {
  for (const StreamId id : std::exchange(parked_, {})) {
    if (PublishedStream* stream = streams_.find(id)) {
      stream->parked = false;
      enqueue(*stream);
    }
  }
}

void Broadcaster::forget(StreamId stream) {
  const PublishedStream* known = streams_.find(stream);
  if (known == nullptr || known->queued) order_.remove(stream);
  if (known == nullptr || known->parked) std::erase(parked_, stream);
  unreadable_.erase(stream);
  if (prepared_ && prepared_->stream == stream) prepared_.reset();
}

bool Broadcaster::compressing() const {
  switch (config_.compression.mode) {
    case CompressionConfig::Mode::kNone: return false;
    case CompressionConfig::Mode::kZstd: return true;
    case CompressionConfig::Mode::kAuto: break;
  }
  return policy_.compress();
}

std::size_t Broadcaster::turn(MonoTime now) {
  policy_.tick(now);
  std::size_t chunks = 0;
  std::size_t budget = kBytesPerTurn;
  if (prepared_) {
    if (flush(now) != Step::kSent) return 0;
    ++chunks;
  }
  if (!unreadable_.empty() && now >= retry_reads_at_) {
    for (const StreamId id : std::exchange(unreadable_, {})) {
      if (PublishedStream* stream = streams_.find(id)) enqueue(*stream);
    }
  }
  while (budget > 0) {
    const auto next = order_.take(now);
    if (!next) break;
    const StreamId id = next->stream;
    PublishedStream* stream = streams_.find(id);
    if (stream == nullptr) continue;
    if (!callbacks_.wanted(*stream)) {
      stream->queued = false;
      stream->parked = true;
      parked_.push_back(stream->info.stream);
      continue;
    }
    std::size_t share = next->share;
    Step outcome = Step::kSent;
    while (share > 0 && outcome == Step::kSent && stream != nullptr && stream->info.sent < stream->info.head) {
      const FileOffset before = stream->info.sent;
      outcome = step(*stream, now);
      stream = streams_.find(id);  // its owner may have removed it
      if (outcome == Step::kSent && stream != nullptr) {
        ++chunks;
        const std::size_t done = stream->info.sent - before;
        share -= std::min(share, done);
        budget -= std::min(budget, std::max(done, kLeastPerChunk));
      }
    }
    if (stream == nullptr) continue;
    if (outcome == Step::kWait) {
      // What waits is prepared_; whoever is next gets the wire after it.
      order_.put_back(id, stream->info.topic);
      return chunks;
    }
    stream->queued = false;
    if (outcome == Step::kSent || outcome == Step::kLater) enqueue(*stream);
    if (outcome == Step::kLater) budget -= std::min(budget, TurnOrder::kBytesPerTurn);  // it had its share of work
  }
  return chunks;
}

Broadcaster::Step Broadcaster::step(PublishedStream& stream, MonoTime now) {
  const StreamId id = stream.info.stream;
  const auto ready = prepare(stream);
  if (!ready) {
    if (ready.error().code == ErrorCode::kReplaced) {
      callbacks_.broken(stream, ready.error());
      // Its owner may have found the bytes somewhere else.
      if (const auto* left = streams_.find(id); left != nullptr && left->source != nullptr) retry_later(id, now);
      return Step::kNothing;
    }
    if (ready.error().code == ErrorCode::kWouldBlock) return Step::kLater;
    ++counters_.read_errors;
    retry_later(id, now);
    if (const auto n = read_error_log_.occurred(now)) {
      log::warn("cannot read, will try again",
                {{"stream", id}, {"path", stream.info.path}, {"error", ready.error()}, {"count", *n}});
    }
    return Step::kNothing;
  }
  if (*ready) return flush(now);
  if (stream.source != nullptr) retry_later(id, now);  // less was there than its head says
  return Step::kNothing;
}

void Broadcaster::retry_later(StreamId stream, MonoTime now) {
  if (unreadable_.empty()) retry_reads_at_ = now + kReadRetry;
  unreadable_.insert(stream);
}

Result<bool> Broadcaster::prepare(PublishedStream& stream) {
  if (stream.source == nullptr) return false;
  const std::uint64_t behind = stream.info.head - stream.info.sent;
  FramePool::Buffer buffer = pool_.take();
  // The wire is what a message must not be too large for, so compressible bytes make a larger chunk.
  const auto fitting = static_cast<std::uint64_t>(sizer_.bytes() * (compressing() ? ratio_ : 1.0));
  const auto want = static_cast<std::size_t>(std::min<std::uint64_t>({behind, fitting, config_.chunk_bytes}));
  const auto space = buffer.bytes().first(want);
  const auto n = stream.source->read_at(stream.info.sent, space);
  if (!n) return tl::unexpected(n.error());
  if (*n == 0) return false;

  wire::Chunk chunk;
  chunk.stream = stream.info.stream;
  chunk.offset = stream.info.sent;
  chunk.raw_length = static_cast<std::uint32_t>(*n);
  chunk.read_time = wall_now();
  chunk.sealed = stream.info.sealed && chunk.end() == stream.info.head;
  // The source remembers what it read now; whether it was sent is known later, but only this chunk can come next.
  stream.source->mark_sent(chunk.end(), space.first(*n));
  prepared_.emplace(Prepared{stream.info.stream, chunk, {}, 0, false});
  build_message(*prepared_, to_payload(prepared_->chunk, std::move(buffer), compressing(), pool_));
  return true;
}

Frame Broadcaster::to_payload(wire::Chunk& chunk, FramePool::Buffer&& buffer, bool compress, FramePool& pool) {
  if (compress && chunk.raw_length >= kWorthCompressing) {
    FramePool::Buffer packed = pool.take();
    const MonoTime start = mono_now();
    const auto size = compressor_.compress(buffer.bytes().first(chunk.raw_length), packed.bytes());
    policy_.compressed(chunk.raw_length, mono_now() - start);
    if (size) {
      chunk.encoding = wire::Encoding::kZstd;
      return pool.to_frame(std::move(packed), *size);
    }
  }
  chunk.encoding = wire::Encoding::kNone;
  return pool.to_frame(std::move(buffer), chunk.raw_length);
}

void Broadcaster::build_message(Prepared& prepared, Frame payload) {
  const PublishedStream* stream = streams_.find(prepared.stream);
  const std::string topic = wire::chunk_topic_frame(stream->info.topic);
  prepared.message.topic = Frame::copy_of(topic);
  prepared.message.header = Frame::copy_of(encoder_.chunk(prepared.chunk, topic, payload.bytes()));
  prepared.message.payload = std::move(payload);
  prepared.wire_bytes = topic.size() + prepared.message.header.size() + prepared.message.payload.size();
  prepared.may_compress = config_.compression.mode == CompressionConfig::Mode::kAuto &&
                          prepared.chunk.encoding == wire::Encoding::kNone &&
                          prepared.chunk.raw_length >= kWorthCompressing;
}

/// While the wire makes us wait there is time to make the waiting chunk smaller.
void Broadcaster::compress_prepared() {
  prepared_->may_compress = false;
  FramePool::Buffer packed = pool_.take();
  const auto raw = prepared_->message.payload.bytes();
  const MonoTime start = mono_now();
  const auto size = compressor_.compress(raw, packed.bytes());
  policy_.compressed(raw.size(), mono_now() - start);
  if (!size) return;
  prepared_->chunk.encoding = wire::Encoding::kZstd;
  build_message(*prepared_, pool_.to_frame(std::move(packed), *size));
}

Broadcaster::Step Broadcaster::flush(MonoTime now) {
  const auto wait = [&](MonoTime at) {
    if (waiting_since_) policy_.waited(at - *waiting_since_);
    waiting_since_ = at;
    if (prepared_->may_compress && policy_.compress()) compress_prepared();
    return Step::kWait;
  };
  if (!bucket_.may_send(now)) return wait(now);

  auto outcome = port_.send(prepared_->message, BroadcastPort::WhenFull::kBlock);
  if (outcome == BroadcastPort::Outcome::kBlocked) {
    if (!patience_.exhausted(now, callbacks_.receivers())) return wait(now);
    outcome = port_.send(prepared_->message, BroadcastPort::WhenFull::kSkipThatReceiver);
    if (outcome == BroadcastPort::Outcome::kBlocked) return wait(now);
    ++counters_.chunks_skipped_a_receiver;
  }
  if (waiting_since_) policy_.waited(now - *waiting_since_);
  waiting_since_.reset();
  patience_.sent(now);
  const std::size_t wire_bytes = prepared_->wire_bytes;
  bucket_.sent(wire_bytes);
  policy_.sent(prepared_->chunk.raw_length);
  sizer_.sent(now);
  const auto wire = static_cast<double>(wire_bytes);
  ratio_ = 0.9 * ratio_ + 0.1 * static_cast<double>(prepared_->chunk.raw_length) / wire;
  ++counters_.chunks_sent;
  counters_.raw_bytes_sent += prepared_->chunk.raw_length;
  counters_.wire_bytes_sent += prepared_->wire_bytes;
  PublishedStream* stream = streams_.find(prepared_->stream);
  const FileOffset sent = prepared_->chunk.end();
  prepared_.reset();
  if (stream != nullptr) {
    order_.sent(stream->info.topic, wire_bytes);
    stream->info.sent = std::max(stream->info.sent, sent);
    callbacks_.sent(*stream);
    if (!stream->queued) enqueue(*stream);
  }
  return Step::kSent;
}

std::optional<MonoTime> Broadcaster::due(MonoTime now) {
  if (prepared_) return std::max(bucket_.ready_at(now), now + (patience_.blocked() ? kBlockedRetry : Duration::zero()));
  std::optional<MonoTime> at;
  if (!order_.empty()) at = order_.due(now);
  if (!unreadable_.empty()) at = std::min(at.value_or(MonoTime::max()), std::max(now, retry_reads_at_));
  return at;
}

}  // namespace fantail
