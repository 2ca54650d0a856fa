#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/base/result.h"
#include "common/base/signals.h"
#include "common/base/unique_fd.h"
#include "common/rpc/invocation.h"
#include "common/rpc/rpc_server.h"
#include "common/rpc/worker_pool.h"
#include "common/transport/control_link.h"
#include "common/transport/spin_policy.h"

namespace fantail::rpc {

struct WorkerOptions {
  std::string address;                 ///< of a service, or of whoever calls: "tcp://HOST:PORT" or "ipc://PATH"
  bool bind = false;                   ///< clients come to us instead
  std::string name;                    ///< unlike that of other workers
  std::vector<std::string> types{""};  ///< of the requests that it takes
  std::uint32_t slots = 1;             ///< so many at a time, 1 to kMaxSlots
  ControlOptions control;
};

/// Answers requests with functions: connects to whoever hands them out, or is called by clients directly. Methods run
/// on threads of their own, so heartbeats and quick methods go on beside slow ones. One thread owns it; emit() may be
/// called by any.
class RpcWorker final : private ControlEvents {
 public:
  /// Returns the final answer. What it throws is carried to the caller, with class, message and nested exceptions.
  using Method = std::function<std::string(Invocation& invocation)>;
  enum class Where : std::uint8_t {
    kThread,
    kLoop,  ///< between two messages: for methods that take microseconds
  };
  /// What happens, for logs of one's own. May be empty.
  struct Hooks {
    std::function<void(const Invocation&)> on_request;
    std::function<void(std::string_view peer)> on_connected;
    std::function<void(std::string_view peer, std::string_view reason)> on_disconnected;
  };

  static Result<std::unique_ptr<RpcWorker>> open(Context& context, WorkerOptions options);
  /// Cancels what is going on and waits for the methods to return.
  ~RpcWorker() override;

  void serve(std::string method, Method function, Where where = Where::kThread);
  void hooks(Hooks hooks) { hooks_ = std::move(hooks); }

  /// Tells everybody who is connected, in order for each channel. Waits while more than 1 MiB is on its way. False: it
  /// is ending. Whoever calls it must have returned before the worker is destroyed.
  bool emit(std::string channel, std::string content);
  /// From now on emit() takes nothing and does not wait. Any thread.
  void end_events();

  /// Until a stop signal: what is going on may take up to `drain`; a second signal ends it at once. The exit code.
  int run(StopSignals& signals, Duration drain = 10s);
  std::size_t turn(MonoTime now);
  /// Sleeps until there is something to do; at most a second.
  void wait(MonoTime now, int also = -1);

  bool connected() const { return !up_.empty(); }
  const std::string& address() const { return address_; }  ///< where it is bound
  std::size_t going_on() const { return invocations_.size(); }
  /// Why it cannot go on: its name is taken.
  const std::optional<Error>& failed() const { return failed_; }

 private:
  struct Outgoing {
    std::string channel;
    std::string content;
    std::optional<std::set<PeerId>> to;  ///< who has not got it yet; nothing: not begun
  };
  struct Server {
    Method function;
    Where where;
  };
  struct Upstream {
    wire::Peer who;
    CallTable calls;
    std::deque<std::uint64_t> freed;  ///< requests that were cancelled and have ended: to be told
    bool ready_said = false;          ///< with what there is to say now
  };

  explicit RpcWorker(WorkerOptions options) : options_(std::move(options)) {}
  void on_peer_up(PeerId peer, const wire::Peer& who) override;
  void on_peer_down(PeerId peer, std::string_view reason) override;
  void on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) override;
  void on_request(const Caller& caller, const wire::Request& request, std::string_view arguments);
  void on_gone(const Caller& caller);
  bool tell(PeerId peer, Upstream& upstream, std::string_view method, const std::string& arguments,
            CallTable::OnDone done);
  bool say_ready(PeerId peer, Upstream& upstream);
  void say_ready_to_all();
  std::size_t tell_upstream(MonoTime now);
  void work(std::stop_token stop);
  void begin(std::shared_ptr<Invocation> invocation, const Server& server);
  std::size_t send_answers();
  std::size_t send_events();
  void wake();
  void take_no_more();

  WorkerOptions options_;
  std::string address_;
  std::unique_ptr<ControlLink> link_;
  std::unique_ptr<RpcServer> server_;
  wire::Encoder encoder_;
  std::map<std::string, Server, std::less<>> methods_;
  Hooks hooks_;
  std::map<PeerId, Upstream> up_;
  std::map<Caller, std::shared_ptr<Invocation>> invocations_;
  std::optional<MonoTime> ready_again_;
  std::optional<MonoTime> refused_since_;
  std::optional<Error> failed_;
  bool leaving_ = false;
  SpinPolicy spin_;
  UniqueFd wake_fd_;

  std::mutex mutex_;
  std::condition_variable_any work_there_;
  std::condition_variable_any room_;
  struct Queued {
    std::shared_ptr<Invocation> invocation;
    const Method* function;
  };
  std::deque<Queued> queue_;  // guarded by mutex_, like all below
  std::size_t idle_threads_ = 0;
  std::deque<Outgoing> events_;
  std::size_t event_bytes_ = 0;
  bool closing_ = false;
  bool woken_ = false;
  std::vector<std::jthread> threads_;  ///< of the loop; last, so that they end first
};

}  // namespace fantail::rpc
