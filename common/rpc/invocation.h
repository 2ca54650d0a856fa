#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "common/base/clock.h"
#include "common/base/unique_fd.h"
#include "common/rpc/rpc_server.h"

namespace fantail::rpc {

/// Thrown by a method to fail with a type of its own; any other exception fails with the name of its class.
class Failed : public std::runtime_error {
 public:
  Failed(std::string failure_type, const std::string& message)
      : std::runtime_error(message), type_(std::move(failure_type)) {}
  const std::string& type() const { return type_; }

 private:
  std::string type_;
};

/// One request that a worker is at: what the method sees of it, on a thread of its own, and what the worker's loop
/// takes from it.
class Invocation {
 public:
  Invocation(Caller caller, wire::Request request, std::string arguments, std::optional<MonoTime> deadline,
             std::function<void()> wake)
      : caller_(caller),
        request_(std::move(request)),
        arguments_(std::move(arguments)),
        deadline_(deadline),
        wake_(std::move(wake)) {}

  // ---- for the method

  const std::string& method() const { return request_.method; }
  const std::string& type() const { return request_.type; }
  const std::string& arguments() const { return arguments_; }
  /// Until when the caller waits; nothing: for ever.
  std::optional<MonoTime> deadline() const { return deadline_; }
  /// One of several answers, at most 1 MiB. Waits while more than that of them is on its way. False: nobody waits for
  /// an answer any more.
  bool partial(std::string_view result);
  /// Nobody waits for an answer any more: the method should end.
  bool cancelled() const { return cancelled_; }
  /// Readable when cancelled(): for poll(2). Made when it is asked for; -1: there are no descriptors left.
  int cancelled_fd();

  // ---- for the loop

  const Caller& caller() const { return caller_; }
  void cancel();
  /// Runs the method and keeps its answer, or what it threw.
  void run(const std::function<std::string(Invocation&)>& method);
  /// Sends what there is. True: that was all, the request is answered. False: more will come, or the caller's queue is
  /// full, which blocked() tells.
  bool send_to(RpcServer& server);
  bool blocked() const { return blocked_; }
  bool ended() const { return ended_; }

 private:
  void tell_cancelled();
  static constexpr std::size_t kMostWaiting = 1024 * 1024;

  Caller caller_;
  wire::Request request_;
  std::string arguments_;
  std::optional<MonoTime> deadline_;
  std::function<void()> wake_;  ///< there is something to send; may be empty
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> ended_{false};
  bool blocked_ = false;  ///< of the loop

  std::mutex mutex_;
  std::condition_variable room_;
  UniqueFd cancelled_fd_;  // guarded by mutex_, like all below
  std::deque<std::string> parts_;
  std::size_t waiting_bytes_ = 0;
  std::string result_;
  std::optional<wire::Failure> failure_;
};

}  // namespace fantail::rpc
