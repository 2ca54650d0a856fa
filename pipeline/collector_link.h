#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/result.h"
#include "common/rpc/rpc_client.h"
#include "common/transport/context.h"
#include "common/transport/waiter.h"
#include "pipeline/job_protocol.h"
#include "pipeline/task.h"

namespace fantail::pipeline {

/// A distributor's side of its collector: tells it of the run and of its end, and hears what it has acknowledged, from
/// the beginning on whenever the collector or its word was lost. One thread.
class CollectorLink {
 public:
  enum class Phase : std::uint8_t {
    kOpening,     ///< the collector does not know of the run yet
    kCatchingUp,  ///< it tells what it has of it
    kFollowing,   ///< it tells what it gets
    kFinishing,   ///< all is done, the collector is being told
    kFinished,
  };
  struct Run {
    std::string id;
    std::vector<std::string> tasks;
    bool details = false;          ///< acknowledgements tell more than the job
    bool finished_before = false;  ///< the collector may have finished it, too, and be gone
  };
  /// Called from turn().
  struct Events {
    std::function<void(Acknowledgement)> on_acknowledged;
    std::function<void()> on_caught_up;    ///< each time it has told all of before
    std::function<void()> on_rolled_back;  ///< it lost results: nothing is acknowledged any more
  };
  static Result<std::unique_ptr<CollectorLink>> connect(Context& context, const std::string& address, Run run,
                                                        Events events);

  Phase phase() const { return phase_; }
  /// Nothing is asked before. `metadata`: JSON.
  void begin(std::string metadata) { metadata_ = std::move(metadata); }
  /// Every job has its result or was given up, and that is on our disk.
  void finish();

  std::size_t turn(MonoTime now);
  void add_to(Waiter& waiter) const;
  MonoTime due() const;

 private:
  CollectorLink(Run run, Events events)
      : run_(std::move(run)), events_(std::move(events)), told_(run_.tasks.size(), 0) {}
  void open();
  void follow();
  void on_acks(std::string_view text);
  void tell_end();

  Run run_;
  Events events_;
  std::unique_ptr<rpc::RpcClient> client_;
  std::optional<std::string> metadata_;
  Phase phase_ = Phase::kOpening;
  bool asked_ = false;  ///< what the phase needs
  std::optional<MonoTime> ask_again_;
  std::vector<std::uint64_t> told_;  ///< results of each task
  std::uint64_t acks_ = 0;
  log::Repeated log_;
};

}  // namespace fantail::pipeline
