#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/types.h"
#include "common/stream/pacing.h"

namespace fantail {

/// How fast the streams of a topic, and of all topics under it, may be broadcast together.
struct TopicLimit {
  std::string topic;
  std::uint64_t bytes_per_s = 0;
};

/// Which stream is next at the broadcast. Streams take turns in lanes, and lanes share the broadcast by bytes. Streams
/// under the same limits are one lane, so without limits there is just one; with `fair` each topic has its own. Pure
/// decisions; time comes in as an argument.
class TurnOrder {
 public:
  static constexpr std::size_t kBytesPerTurn = 1024 * 1024;

  TurnOrder(std::vector<TopicLimit> limits, bool fair);

  /// Behind the others of its lane.
  void push(StreamId stream, const std::string& topic);
  /// One whose turn was cut short by the wire. Where there are several lanes it is next again in its own.
  void put_back(StreamId stream, const std::string& topic);
  void remove(StreamId stream);
  bool empty() const { return waiting_.empty(); }

  struct Turn {
    StreamId stream;
    std::size_t share = 0;  ///< bytes; its last message may go beyond it
  };
  /// Takes out whose turn it is; nothing when nobody waits, or only streams at their limit.
  std::optional<Turn> take(MonoTime now);
  /// When take() will have something. Only while somebody waits.
  MonoTime due(MonoTime now);
  /// So much of the topic was broadcast.
  void sent(const std::string& topic, std::size_t bytes);

 private:
  struct Limit {
    std::string topic;
    TokenBucket bucket;
  };
  struct Lane {
    std::deque<StreamId> streams;
    std::vector<Limit*> limits;  ///< all of them hold
    std::int64_t credit = 0;     ///< bytes left of its turn; below 0 when a message went beyond it
  };
  Lane& lane_of(const std::string& topic);
  static MonoTime ready_at(Lane& lane, MonoTime now);
  void wait(Lane& lane);
  void end_turn();

  std::vector<std::unique_ptr<Limit>> limits_;
  bool fair_;
  std::map<std::string, std::unique_ptr<Lane>> lanes_;  ///< by topic with `fair`, else by the limits that hold
  std::map<std::string, Lane*> lane_of_topic_;
  std::unique_ptr<Lane> only_;  ///< without limits and fairness
  std::deque<Lane*> waiting_;   ///< lanes with streams; whose turn it is first
  Lane* current_ = nullptr;     ///< whose turn is not over
};

}  // namespace fantail
