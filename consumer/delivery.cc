// The part of Consumer that hands the bytes of streams to every sink, and waits where one cannot take them.
#include <algorithm>

#include "consumer/entry.h"
#include "consumer/stdout_sink.h"

namespace fantail {
namespace {

constexpr Duration kRetryBlocked = 250ms;

}  // namespace

StreamMeta Consumer::describe(const NodeView& node, const wire::StreamInfo& info) {
  StreamMeta meta;
  meta.stream = info.stream;
  meta.node = node.id;
  meta.node_name = node.name;
  meta.node_dir = node.name;
  meta.topic = info.topic;
  meta.path = info.path;
  meta.sequence = info.sequence;
  meta.first_seen = info.first_seen;
  if (!store_) return meta;
  if (const auto row = store_->node(node.id, node.name)) {
    meta.node_dir = row->directory;
  } else {
    log::error("cannot record a node", {{"node", node.name}, {"error", row.error()}});
    meta.node_dir = to_string(node.id);
  }
  return meta;
}

void Consumer::expect(const NodeView& node, std::span<const wire::StreamInfo* const> streams) {
  std::vector<StreamMeta> metas;
  for (const wire::StreamInfo* info : streams) metas.push_back(describe(node, *info));
  for (const auto& sink : sinks_) sink->expect(metas);
}

StreamReceiver::Start Consumer::on_stream(const NodeView& node, const wire::StreamInfo& info, bool news) {
  auto entry = std::make_unique<Entry>();
  entry->meta = describe(node, info);
  entry->base = info.base;
  bool born_after_us = news;
  if (store_) {
    if (const auto row = store_->node(node.id, node.name)) {
      // It came to be while this consumer knew the node, though perhaps not while it was running.
      born_after_us = born_after_us || (row->known_sequence > 0 && info.sequence > row->known_sequence);
    }
    auto& known = known_sequences_[node.id];
    known = std::max(known, info.sequence);
    known_->told(node.id, info);
  }
  const FileOffset begin = config_.from == "now" && !born_after_us ? info.head : info.base;
  Start start{FileOffset{UINT64_MAX}, FileOffset{UINT64_MAX}};
  for (const auto& sink : sinks_) {
    const auto stored = store_ ? store_->cursor(sink->key(), info.stream) : std::nullopt;
    entry->taken.push_back(std::max(stored.value_or(begin), info.base));
    entry->durable.push_back(stored.value_or(FileOffset{}));
    entry->opening.emplace_back(entry->taken.back());
  }
  Entry& ref = *entry;
  entries_[info.stream] = std::move(entry);
  if (auto ok = catch_up(ref); !ok) blocked_by(ok.error());
  for (std::size_t i = 0; i < sinks_.size(); ++i) {
    start.cursor = std::min(start.cursor, ref.taken[i]);
    start.committed = std::min({start.committed, ref.durable[i], ref.taken[i]});
    // Kept even before the first byte: a restart must not take what comes meanwhile for history.
    ref.start.emplace_back();
    if (store_ && !store_->cursor(sinks_[i]->key(), info.stream)) ref.start[i] = ref.taken[i];
  }
  if (std::any_of(ref.start.begin(), ref.start.end(), [](const auto& s) { return s.has_value(); }))
    begun_.push_back(info.stream);
  return start;
}

/// Everything that a sink could not take before: opening, losses, the seal.
Status Consumer::catch_up(Entry& entry) {
  const auto attempt = [&]() -> Status {
    for (std::size_t i = 0; i < sinks_.size(); ++i) {
      if (!entry.opening[i]) continue;
      const auto at = sinks_[i]->open_stream(entry.meta, *entry.opening[i]);
      if (!at) return tl::unexpected(at.error());
      entry.taken[i] = *at;
      entry.opening[i].reset();
      if (streams_) streams_->rewind(entry.meta.stream, *at);
    }
    while (!entry.losses.empty()) {
      const Entry::Loss& loss = entry.losses.front();
      for (std::size_t i = 0; i < sinks_.size(); ++i) {
        if (entry.taken[i] >= loss.range.to) continue;
        const ByteRange rest{std::max(entry.taken[i], loss.range.from), loss.range.to};
        if (auto ok = sinks_[i]->lose(entry.meta, rest, loss.reason); !ok) return ok;
        entry.taken[i] = loss.range.to;
      }
      entry.losses.erase(entry.losses.begin());
    }
    if (entry.sealing) {
      for (const auto& sink : sinks_) {
        if (auto ok = sink->seal(entry.meta, *entry.sealing); !ok) return ok;
      }
      entry.sealing.reset();
    }
    return {};
  };
  const Status status = attempt();
  if (status) {
    waiting_.erase(entry.meta.stream);
  } else {
    waiting_.insert(entry.meta.stream);
  }
  return status;
}

StreamReceiver::Delivery Consumer::on_data(StreamId stream, FileOffset offset, std::span<const std::byte> bytes,
                                           WallTime read_time) {
  Entry& entry = *entries_.at(stream);
  if (waiting_.contains(stream)) {
    if (auto ok = catch_up(entry); !ok) {
      blocked_by(ok.error());
      return Delivery::kBlocked;
    }
  }
  const FileOffset end = offset + bytes.size();
  for (std::size_t i = 0; i < sinks_.size(); ++i) {
    if (entry.taken[i] >= end) continue;  // it took them before another sink refused, or before a restart
    const FileOffset from = std::max(entry.taken[i], offset);
    const auto rest = bytes.subspan(static_cast<std::size_t>(from - offset));
    if (auto ok = sinks_[i]->write(entry.meta, from, rest, read_time); !ok) {
      blocked_by(ok.error());
      return Delivery::kBlocked;
    }
    entry.taken[i] = end;
  }
  return Delivery::kTaken;
}

void Consumer::on_loss(StreamId stream, ByteRange range, wire::LossReason reason) {
  Entry& entry = *entries_.at(stream);
  if (store_) {
    unrecorded_.push_back({entry.meta, range, reason});
    record_losses();
  }
  entry.losses.push_back({range, reason});
  if (auto ok = catch_up(entry); !ok) blocked_by(ok.error());
}

void Consumer::on_sealed(StreamId stream, FileOffset final_length) {
  if (known_) known_->sealed(stream, final_length);
  Entry& entry = *entries_.at(stream);
  entry.sealing = final_length;
  if (auto ok = catch_up(entry); !ok) blocked_by(ok.error());
}

void Consumer::on_info(const NodeView& node, const wire::StreamInfo& info) {
  if (known_) known_->told(node.id, info);
}

std::optional<bool> Consumer::tell_known(const NodeView& node, std::uint64_t after, StreamsPage& page) {
  return known_ ? known_->tell(node.id, after, page) : false;
}

void Consumer::blocked_by(const Error& error) {
  retry_at_ = mono_now() + kRetryBlocked;
  if (error.code == ErrorCode::kWouldBlock) return;  // a slow reader of standard output is no fault
  if (const auto n = blocked_log_.occurred(mono_now())) {
    log::error("cannot write, waiting for it to become possible; nothing is lost", {{"error", error}, {"count", *n}});
  }
}

void Consumer::retry_blocked(MonoTime now) {
  const bool reader_came_back = stdout_ != nullptr && stdout_->drained();
  if (now < *retry_at_ && !reader_came_back) return;
  retry_at_.reset();
  for (const StreamId id : std::set(waiting_)) {
    if (auto ok = catch_up(*entries_.at(id)); !ok) blocked_by(ok.error());
  }
  streams_->resume();
}

void Consumer::flush(MonoTime now) {
  for (const auto& sink : sinks_) {
    if (auto ok = sink->flush(now); !ok && !(stdout_ != nullptr && stdout_->closed())) blocked_by(ok.error());
  }
}

}  // namespace fantail
