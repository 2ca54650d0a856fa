#include "common/stream/turn_order.h"

#include <algorithm>
#include <utility>

#include "common/wire/codec.h"

namespace fantail {
namespace {

/// As much as may pass while other lanes have their turns.
std::uint64_t burst_for(std::uint64_t bytes_per_s) { return std::max<std::uint64_t>(bytes_per_s / 10, 16 * 1024); }

}  // namespace

TurnOrder::TurnOrder(std::vector<TopicLimit> limits, bool fair) : fair_(fair) {
  for (TopicLimit& limit : limits) {
    limits_.push_back(std::make_unique<Limit>(
        Limit{std::move(limit.topic), TokenBucket(limit.bytes_per_s, burst_for(limit.bytes_per_s))}));
  }
  if (limits_.empty() && !fair_) only_ = std::make_unique<Lane>();
}

TurnOrder::Lane& TurnOrder::lane_of(const std::string& topic) {
  if (only_) return *only_;
  const auto known = lane_of_topic_.find(topic);
  if (known != lane_of_topic_.end()) return *known->second;
  std::vector<Limit*> limits;
  std::string name = fair_ ? topic : std::string();
  for (const auto& limit : limits_) {
    if (!wire::topic_matches(limit->topic, topic)) continue;
    limits.push_back(limit.get());
    if (!fair_) name += limit->topic + '\n';
  }
  auto& lane = lanes_[name];
  if (!lane) {
    lane = std::make_unique<Lane>();
    lane->limits = std::move(limits);
  }
  lane_of_topic_[topic] = lane.get();
  return *lane;
}

void TurnOrder::push(StreamId stream, const std::string& topic) {
  Lane& lane = lane_of(topic);
  if (lane.streams.empty()) wait(lane);
  lane.streams.push_back(stream);
}

void TurnOrder::put_back(StreamId stream, const std::string& topic) {
  if (only_) return push(stream, topic);
  Lane& lane = lane_of(topic);
  if (lane.streams.empty()) wait(lane);
  lane.streams.push_front(stream);
}

/// Behind the other lanes, unless its turn is not over.
void TurnOrder::wait(Lane& lane) {
  if (current_ == &lane && lane.credit > 0) {
    waiting_.push_front(&lane);
  } else {
    waiting_.push_back(&lane);
  }
}

void TurnOrder::remove(StreamId stream) {
  for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
    if (std::erase((*it)->streams, stream) == 0) continue;
    if ((*it)->streams.empty()) waiting_.erase(it);
    return;
  }
}

MonoTime TurnOrder::ready_at(Lane& lane, MonoTime now) {
  MonoTime at = now;
  for (Limit* limit : lane.limits) at = std::max(at, limit->bucket.ready_at(now));
  return at;
}

void TurnOrder::end_turn() {
  waiting_.push_back(waiting_.front());
  waiting_.pop_front();
  current_ = nullptr;
}

std::optional<TurnOrder::Turn> TurnOrder::take(MonoTime now) {
  for (std::size_t at_limit = 0; at_limit < waiting_.size();) {
    Lane& lane = *waiting_.front();
    if (ready_at(lane, now) > now) {
      ++at_limit;
      end_turn();
      continue;
    }
    // As in deficit round robin (Shreedhar and Varghese): what a message takes too much is missing from the next turn.
    if (!only_ && std::exchange(current_, &lane) != &lane && lane.credit <= 0) lane.credit += kBytesPerTurn;
    if (!only_ && lane.credit <= 0) {
      at_limit = 0;
      end_turn();
      continue;
    }
    // A stream at a limit gets one message at a time, and then the limit is asked again.
    std::size_t share = lane.limits.empty() ? kBytesPerTurn : 1;
    if (!only_) share = std::min(share, static_cast<std::size_t>(lane.credit));
    const Turn turn{lane.streams.front(), share};
    lane.streams.pop_front();
    if (lane.streams.empty()) waiting_.pop_front();
    return turn;
  }
  return std::nullopt;
}

MonoTime TurnOrder::due(MonoTime now) {
  MonoTime at = MonoTime::max();
  for (Lane* lane : waiting_) at = std::min(at, ready_at(*lane, now));
  return at;
}

void TurnOrder::sent(const std::string& topic, std::size_t bytes) {
  if (only_) return;
  Lane& lane = lane_of(topic);
  for (Limit* limit : lane.limits) limit->bucket.sent(bytes);
  lane.credit -= static_cast<std::int64_t>(bytes);
}

}  // namespace fantail
