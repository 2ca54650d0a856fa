#include "common/stream/commit_ledger.h"

#include <algorithm>
#include <array>

#include "common/base/digest.h"
#include "common/wire/codec.h"

namespace fantail {

bool shard_takes(StreamId stream, std::uint16_t index, std::uint16_t count) {
  if (count <= 1) return true;
  const auto weight = [&](std::uint64_t share) {
    // Written out byte by byte, so that every machine gives the same answer.
    std::array<std::byte, 24> key{};
    const std::array<std::uint64_t, 3> words = {stream.hi, stream.lo, share};
    for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(words[i / 8] >> (8 * (i % 8)));
    return digest(key);
  };
  std::uint16_t best = 0;
  std::uint64_t best_weight = weight(0);
  for (std::uint16_t i = 1; i < count; ++i) {
    if (const std::uint64_t w = weight(i); w > best_weight) {
      best_weight = w;
      best = i;
    }
  }
  return best == index;
}

bool Interest::wants(const wire::StreamInfo& stream) const {
  const bool topic = topics.empty() || std::any_of(topics.begin(), topics.end(), [&](const std::string& wanted) {
                       return wire::topic_matches(wanted, stream.topic);
                     });
  return topic && shard_takes(stream.stream, shard_index, shard_count);
}

void CommitLedger::seen(const std::string& name, Interest interest, WallTime now, bool connected) {
  Consumer& consumer = consumers_[name];
  consumer.interest = std::move(interest);
  consumer.last_seen = now;
  consumer.connected = connected;
  consumer.was_here = consumer.was_here || connected;
}

void CommitLedger::disconnected(const std::string& name, WallTime now) {
  const auto found = consumers_.find(name);
  if (found == consumers_.end()) return;
  found->second.connected = false;
  found->second.last_seen = now;
}

void CommitLedger::forget_consumer(const std::string& name) { consumers_.erase(name); }

bool CommitLedger::commit(const std::string& name, StreamId stream, FileOffset offset) {
  FileOffset& position = consumers_[name].positions[stream];
  if (offset <= position) return false;
  position = offset;
  return true;
}

void CommitLedger::forget_stream(StreamId stream) {
  for (auto& [name, consumer] : consumers_) consumer.positions.erase(stream);
}

bool CommitLedger::anybody_connected() const {
  return std::any_of(consumers_.begin(), consumers_.end(), [](const auto& c) { return c.second.connected; });
}

bool CommitLedger::anybody_was_here() const {
  return std::any_of(consumers_.begin(), consumers_.end(), [](const auto& c) { return c.second.was_here; });
}

std::optional<FileOffset> CommitLedger::position(const std::string& name, StreamId stream) const {
  const auto consumer = consumers_.find(name);
  if (consumer == consumers_.end()) return std::nullopt;
  const auto found = consumer->second.positions.find(stream);
  if (found == consumer->second.positions.end()) return std::nullopt;
  return found->second;
}

std::optional<FileOffset> CommitLedger::held_for(const wire::StreamInfo& stream) const {
  std::optional<FileOffset> least;
  for (const auto& [name, consumer] : consumers_) {
    if (!consumer.interest.wants(stream)) continue;
    const FileOffset at = std::max(position(name, stream.stream).value_or(FileOffset{}), stream.base);
    least = least ? std::min(*least, at) : at;
  }
  return least;
}

std::optional<FileOffset> CommitLedger::delivered_to(const wire::StreamInfo& stream) const {
  std::optional<FileOffset> of_all_here;
  std::optional<FileOffset> of_anybody;
  for (const auto& [name, consumer] : consumers_) {
    if (!consumer.interest.wants(stream)) continue;
    const FileOffset at = std::max(position(name, stream.stream).value_or(FileOffset{}), stream.base);
    if (consumer.was_here) of_anybody = std::max(of_anybody.value_or(at), at);
    if (consumer.connected) of_all_here = std::min(of_all_here.value_or(at), at);
  }
  // Who has committed all of it may leave before anybody looks.
  return of_all_here ? of_all_here : of_anybody;
}

}  // namespace fantail
