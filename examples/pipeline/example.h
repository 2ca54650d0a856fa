#pragma once

#include <cstdio>
#include <stdexcept>
#include <thread>
#include <utility>

#include "common/base/private_directory.h"
#include "common/base/program.h"
#include "common/json/json.h"
#include "pipeline/collector.h"
#include "pipeline/distributor.h"
#include "pipeline/generated_jobs.h"
#include "pipeline/job_worker.h"

namespace example {

using namespace fantail;
using namespace fantail::pipeline;

/// The value, or an end with the reason: an example has nobody to tell it to.
template <class T>
T need(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().context);
  return std::move(*result);
}
template <class T>
T need(rpc::CallResult<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(*result);
}

/// What every program begins with, before there are threads: warnings are logged, signals are waited for.
inline StopSignals begin() {
  log::set_up(log::Level::kError);
  return need(StopSignals::block());
}

/// A private directory, for the addresses and the state of one run; it goes away with it.
class Place {
 public:
  std::string address(const std::string& name) const {
    return "ipc://" + (directory_.path() / name).string() + ".sock";
  }
  CollectorConfig collector() const {
    CollectorConfig config;
    config.endpoint = address("collector");
    config.state_dir = directory_.path() / "collector";
    return config;
  }
  DistributorConfig distributor() const {
    DistributorConfig config;
    config.endpoint = address("distributor");
    config.collector = address("collector");
    config.state_dir = directory_.path() / "distributor";
    return config;
  }
  JobWorkerConfig worker(std::string name, std::uint32_t threads = 1) const {
    return {.distributor = address("distributor"), .name = std::move(name), .threads = threads, .key_file = {}};
  }

 private:
  PrivateDirectory directory_ = need(PrivateDirectory::make());
};

inline Task task(TaskSpec spec, const std::vector<std::string>& jobs) {
  Task task;
  task.spec = std::move(spec);
  task.jobs = need(GeneratedJobs::make(jobs));
  return task;
}

/// The numbers from 1 to `last`, as jobs.
inline std::vector<std::string> numbers(int last) {
  std::vector<std::string> jobs;
  for (int i = 1; i <= last; ++i) jobs.push_back(std::to_string(i));
  return jobs;
}

/// What a job says that went well.
inline JobOutcome done(const Json& result) { return {.exit = 0, .result = to_text(result), .error = {}}; }

/// Until the run is over, each of them on a thread of its own. A worker goes when it is destroyed. True: every job has
/// its result.
inline bool run(StopSignals& signals, Distributor& distributor, Collector& collector,
                std::vector<std::unique_ptr<JobWorker>> workers) {
  std::vector<std::jthread> threads;
  threads.emplace_back([&] { collector.run(signals); });
  for (auto& worker : workers) {
    threads.emplace_back([&signals, own = std::move(worker)]() mutable {
      own->run(signals, 1s);
      own.reset();
    });
  }
  return distributor.run(signals, 1s) == kExitOk;
}

/// The last words of an example, and its exit code.
inline int ended(bool right, const std::string& words) {
  std::printf("%s%s\n", right ? "" : "WRONG: ", words.c_str());
  return right ? kExitOk : kExitFailure;
}

}  // namespace example
