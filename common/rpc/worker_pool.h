#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "common/base/result.h"
#include "common/rpc/call_table.h"
#include "common/transport/control_link.h"

namespace fantail::rpc {

/// The requests with which a worker speaks of itself; see docs/protocol.md, section 13.
inline constexpr std::string_view kReadyMethod = "fantail.ready";
inline constexpr std::string_view kFreedMethod = "fantail.freed";
/// The request with which a client of a service asks for the events of all workers: partial answers without end.
inline constexpr std::string_view kListenMethod = "fantail.listen";
/// The type of failure with which a worker that is about to end gives a request back, untouched.
inline constexpr std::string_view kLeavingFailure = "fantail.leaving";
inline constexpr std::uint32_t kMaxSlots = 128;  ///< less than the messages that a control link queues

/// What a worker says when it has ended a request that had been cancelled.
std::string freed_json(std::uint64_t request);

/// What a worker says when it is there.
struct WorkerInfo {
  std::string name;                ///< unlike that of every other worker at the same place
  std::vector<std::string> types;  ///< of requests that it takes; each at most once
  std::uint32_t slots = 1;         ///< so many requests at a time, at most kMaxSlots; 0: no more, it is about to end

  std::string to_json() const;
  static Result<WorkerInfo> from_json(std::string_view text);
};

struct PoolCounters {
  std::uint64_t calls = 0;
  std::uint64_t no_worker = 0;  ///< calls whose deadline passed while there was no worker of their type
  std::uint64_t repeated = 0;   ///< calls given to another worker because the first one went away
  std::uint64_t late_answers = 0;
  std::uint64_t rejected = 0;  ///< messages of workers that cannot be decoded
};

/// Hands calls to workers that come and go. A call waits for a free slot of a worker of its type; the one that has
/// the fewest calls in hand gets it, and among equals the one that has been idle for longest. Takes time and
/// messages as arguments and owns no socket. One thread.
class WorkerPool {
 public:
  using OnEvent = std::function<void(PeerId worker, const wire::Event& event, std::string_view content)>;

  /// `waiting_bytes`: of the arguments of all calls that have not ended.
  explicit WorkerPool(ControlPort& control, std::size_t waiting_bytes = 256 * 1024 * 1024)
      : control_(control), waiting_limit_(waiting_bytes) {}

  /// Takes a call; its number is for cancel(). Ends with kRemote "no_worker" when the deadline passed and no worker of
  /// the type is there, "busy" when there are some and none was free, "too_many_requests" when there is no room to
  /// wait. `call.on_partial` must not cancel. `call.options.repeatable`: given to another worker when the first one
  /// goes away before a partial answer.
  std::uint64_t start(std::string type, CallTable::Call call, MonoTime now);
  /// The caller waits no longer: `on_done` will not be called.
  void cancel(std::uint64_t number);

  /// A worker is there, or says so again. kInvalid: another one has its name.
  Status ready(PeerId peer, WorkerInfo info);
  /// The worker has ended a request that had been cancelled; `arguments`: of kFreedMethod. kInvalid: no usable ones.
  Status freed(PeerId peer, std::string_view arguments);
  void on_peer_down(PeerId peer, std::string_view reason);
  /// Whether this message is an answer or an event of a worker; if so it was dealt with.
  bool on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, const Frame& payload);
  void on_event(OnEvent handler) { on_event_ = std::move(handler); }

  /// Hands out what waits and ends what is late; returns how much. Never waits.
  std::size_t turn(MonoTime now);
  std::optional<MonoTime> due() const;

  bool has_worker(std::string_view type) const;
  std::size_t workers() const { return workers_.size(); }
  std::string name_of(PeerId worker) const;                         ///< "": it is none
  std::size_t waiting() const { return calls_.size() - in_hand_; }  ///< calls without a worker
  std::size_t in_hand() const { return in_hand_; }                  ///< calls that a worker has
  PoolCounters counters() const;

 private:
  /// A call, from start() to its end.
  struct Pending {
    std::string type;
    CallTable::Call call;
    std::optional<MonoTime> deadline;
    PeerId worker{};            ///< who has it; none: it waits
    std::uint64_t request = 0;  ///< its number in that worker's table
    bool heard = false;         ///< a partial answer came
  };
  struct Worker {
    WorkerInfo info;
    CallTable calls;
    std::set<std::uint64_t> unfreed;  ///< requests that were cancelled, and it may still be at it
    std::uint64_t last_used = 0;
    std::uint32_t busy() const { return static_cast<std::uint32_t>(calls.size() + unfreed.size()); }
  };
  /// The workers of one type, the one to take next first.
  using Order = std::set<std::tuple<std::uint32_t, std::uint64_t, PeerId>>;

  void end(std::uint64_t number, CallResult<std::string> result);
  void settle();
  void wait_again(std::uint64_t number, Pending& call);
  bool hand_out(std::uint64_t number, Pending& call, PeerId peer, Worker& worker, MonoTime now);
  std::size_t hand_out_waiting(MonoTime now);
  std::size_t expire(MonoTime now);
  void enter(PeerId peer, const Worker& worker);
  void leave(PeerId peer, const Worker& worker);

  ControlPort& control_;
  std::size_t waiting_limit_;
  std::size_t waiting_bytes_ = 0;
  std::map<std::uint64_t, Pending> calls_;
  std::map<std::string, std::set<std::uint64_t>, std::less<>> waiting_;  ///< by type, oldest first
  std::size_t in_hand_ = 0;
  std::vector<std::pair<std::uint64_t, CallResult<std::string>>> finished_;  ///< by workers, to be ended by settle()
  std::set<std::pair<MonoTime, std::uint64_t>> deadlines_;
  std::map<PeerId, std::unique_ptr<Worker>> workers_;
  std::map<std::string, Order, std::less<>> order_;
  std::map<std::string, PeerId, std::less<>> by_name_;
  std::uint64_t next_ = 1;
  std::uint64_t uses_ = 0;
  wire::Encoder encoder_;
  OnEvent on_event_;
  PoolCounters counters_;
};

}  // namespace fantail::rpc
