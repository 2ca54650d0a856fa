#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/base/private_directory.h"
#include "common/base/result.h"
#include "common/base/unique_fd.h"
#include "pipeline/collector.h"
#include "pipeline/distributor.h"
#include "pipeline/job_worker.h"

namespace fantail::pipeline {

/// One function over many items, done by workers of any number of processes and hosts that come and go; results are in
/// the order of the items and are fetched when they are looked at, as often as one likes. They lie in the collector's
/// journal, not in memory; other programs get them there by id ("map:NUMBER", the number of the chunk) while this
/// object lives. Any thread may ask for results.
class Map {
 public:
  struct Config {
    std::string endpoint{};   ///< where workers come to; empty: ipc, in a directory of our own
    std::string collector{};  ///< where their results go to; empty as well
    std::string key_file{};
    std::uint32_t chunk = 1;  ///< so many items at a time for a worker
    unsigned retries = 0;     ///< of a chunk in which the function threw
  };
  /// `items`: JSON each. Begins at once.
  static Result<std::unique_ptr<Map>> start(Config config, const std::vector<std::string>& items);
  /// Workers that are there are told that it is over.
  ~Map();

  /// What a worker does for a Map: applies `function` to each item of a chunk. JSON in, JSON out; what it throws fails
  /// the chunk.
  static JobWorker::Execute worker(std::function<std::string(std::string_view item)> function);

  const std::string& address() const { return distributor_->address(); }          ///< for workers
  const std::string& collector_address() const { return collector_->address(); }  ///< for who fetches by id
  std::size_t size() const { return size_; }
  /// The result of an item, JSON; waits for it. kWouldBlock: not within `timeout`; kNotFound: it was given up, with the
  /// reason.
  Result<std::string> result(std::size_t item, Duration timeout = Duration::max());
  /// All of them; the first error.
  Result<std::vector<std::string>> results(Duration timeout = Duration::max());

 private:
  Map(Config config, std::size_t size) : config_(std::move(config)), size_(size) {}
  Status open(const std::vector<std::string>& items);
  void loop(const std::stop_token& stop);

  Config config_;
  std::size_t size_;
  std::optional<PrivateDirectory> directory_;
  UniqueFd wake_;
  std::unique_ptr<Collector> collector_;
  std::unique_ptr<Distributor> distributor_;

  std::mutex mutex_;  ///< whoever has it may touch the two above
  std::condition_variable_any progress_;
  std::map<std::uint64_t, std::string> dead_;  ///< chunk to reason
  std::uint64_t chunk_read_ = 0;               ///< the one that was read last, with its results
  std::vector<std::string> chunk_results_;
  std::jthread thread_;  ///< last, so that it ends first
};

}  // namespace fantail::pipeline
