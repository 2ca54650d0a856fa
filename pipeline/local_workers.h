#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/base/unique_fd.h"
#include "common/transport/waiter.h"
#include "pipeline/command_keeper.h"

namespace fantail::pipeline {

/// Worker processes on this host: `fantail-pipeline work`, of this program. One that dies by a signal is started again;
/// one that ends otherwise is not. None outlives us. One thread.
class LocalWorkers {
 public:
  struct Config {
    std::string distributor;  ///< its address
    std::string key_file;
    std::uint32_t threads = 1;
    Duration drain = 10s;
    std::string log_level = "warn";
  };
  LocalWorkers(Config config, const CommandKeeper& keeper) : config_(std::move(config)), keeper_(keeper) {}
  ~LocalWorkers();

  /// So many from now on; those that are too many finish what they are at.
  Status resize(std::uint32_t count);
  /// All finish what they are at and end.
  void drain();
  void kill_all();
  /// Looks after them; how many have ended since the last time.
  std::size_t turn(MonoTime now);
  void add_to(Waiter& waiter) const;
  std::size_t running() const { return workers_.size(); }
  /// The last one that ended without having been told to said so.
  int last_exit() const { return last_exit_; }

 private:
  struct Process {
    pid_t pid;
    UniqueFd fd;
    bool told_to_end = false;
  };
  Status start();
  void end(Process& process);

  Config config_;
  const CommandKeeper& keeper_;
  std::vector<Process> workers_;
  std::uint32_t wanted_ = 0;
  std::uint64_t started_ = 0;
  bool draining_ = false;
  MonoTime start_again_{};
  int last_exit_ = 0;
};

}  // namespace fantail::pipeline
