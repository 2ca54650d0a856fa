#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace fantail {

/// One thread that makes files durable, so that the loop goes on receiving meanwhile. One job at a time.
class SyncWorker {
 public:
  struct Job {
    std::vector<UniqueFd> files;        ///< fsync each
    std::vector<UniqueFd> filesystems;  ///< syncfs each
  };

  SyncWorker();
  ~SyncWorker();  ///< waits for the job under way

  bool busy() const { return busy_; }
  void submit(Job job);
  /// The outcome of the job under way, once there is one.
  std::optional<Status> take_result();
  /// Readable when there is a result; -1 when the system had no descriptor left, then the owner has to look.
  int fd() const { return done_fd_.get(); }

 private:
  void run();
  UniqueFd done_fd_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::optional<Job> job_;
  std::optional<Status> result_;
  bool stop_ = false;
  bool busy_ = false;  ///< owner's view
  std::thread thread_;
};

}  // namespace fantail
