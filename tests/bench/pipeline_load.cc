// What scripts/bench-pipeline and the crash tests run: workers with functions instead of commands, and whole runs with
// such workers.
//
//   pipeline_load worker ADDRESS NAME THREADS MICROSECONDS      does jobs, each of which takes so long
//   pipeline_load run JOBS MICROSECONDS WORKERS THREADS         a run, from its first job to its last acknowledgement
//   pipeline_load sequential JOBS MICROSECONDS                  the same jobs in a loop, nothing beside it
//   pipeline_load idle WORKERS SECONDS                          workers that have nothing to do: what they cost
// Prints one line of JSON: {"seconds": ..., ...}.
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "common/base/private_directory.h"
#include "common/base/signals.h"
#include "common/transport/waiter.h"
#include "pipeline/collector.h"
#include "pipeline/distributor.h"
#include "pipeline/generated_jobs.h"
#include "pipeline/greeting.h"
#include "pipeline/job_worker.h"

using namespace fantail;
using namespace fantail::pipeline;

namespace {

template <class T>
T must(Result<T> result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "pipeline_load: %s\n", result.error().context.c_str());
  std::exit(1);
}

void work_for(Duration time, MonoTime begun) {
  if (time == Duration{}) return;
  std::this_thread::sleep_until(begun + time);
}

int worker(const std::string& address, const std::string& name, std::uint32_t threads, Duration time) {
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // of the threads to come, too: a job of 10 ms shall not take 10.05
  auto signals = must(StopSignals::block());
  JobWorkerConfig config;
  config.distributor = address;
  config.name = name;
  config.threads = threads;
  auto worker = must(JobWorker::open(config, [time](const Job& job) {
    const MonoTime begun = mono_now();
    work_for(time, begun);
    return JobOutcome{.exit = 0, .result = job.data, .error = {}};
  }));
  return worker->run(signals, 10s);
}

long resident_kib() {
  std::ifstream in("/proc/self/statm");
  long pages = 0;
  in >> pages >> pages;
  return pages * ::sysconf(_SC_PAGESIZE) / 1024;
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/// Distributor and collector in this process, each with a thread of its own; workers are processes.
int run(std::uint64_t jobs, Duration time, std::uint32_t workers, std::uint32_t threads, char* self) {
  const auto directory = must(PrivateDirectory::make());
  const std::string base = directory.path().string();
  const std::string at_distributor = "ipc://" + base + "/distributor.sock";
  std::vector<pid_t> children;
  for (std::uint32_t i = 0; i < workers; ++i) {
    const std::string name = "w" + std::to_string(i);
    const std::string count = std::to_string(threads);
    const std::string micros = std::to_string(std::chrono::duration_cast<std::chrono::microseconds>(time).count());
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::execl(self, self, "worker", at_distributor.c_str(), name.c_str(), count.c_str(), micros.c_str(), nullptr);
      ::_exit(127);
    }
    children.push_back(pid);
  }
  CollectorConfig collecting;
  collecting.endpoint = "ipc://" + base + "/collector.sock";
  collecting.publish = "ipc://" + base + "/results.sock";
  collecting.state_dir = base + "/collector";
  collecting.drain = 0ms;
  auto collector = must(Collector::open(collecting));
  std::jthread collects([&](std::stop_token stop) {
    while (!stop.stop_requested()) {
      const MonoTime now = mono_now();
      if (collector->turn(now) > 0) continue;
      Waiter waiter;
      collector->add_to(waiter);
      waiter.wait(collector->due(now) - now);
    }
  });
  Task task;
  task.spec.name = "load";
  task.jobs = must(GeneratedJobs::make(
      "load", [=](std::uint64_t n) { return n <= jobs ? std::optional(std::to_string(n)) : std::nullopt; },
      [] { return true; }));
  DistributorConfig config;
  config.endpoint = at_distributor;
  config.collector = collecting.endpoint;
  config.state_dir = base + "/distributor";
  config.wait_for_metadata = true;
  std::vector<Task> tasks;
  tasks.push_back(std::move(task));
  auto distributor = must(Distributor::open(config, std::move(tasks)));
  MonoTime begun{};
  MonoTime done{};
  bool told = false;
  while (!distributor->ended()) {
    const MonoTime now = mono_now();
    const std::size_t work = distributor->turn(now);
    if (!told && distributor->workers_waiting() == workers && distributor->knows_all_jobs()) {
      if (!distributor->set_metadata("null")) return 1;
      told = true;
    }
    if (begun == MonoTime{} && distributor->board().progress().handed_out > 0) begun = now;
    if (done == MonoTime{} && distributor->board().progress().acknowledged == jobs) done = mono_now();
    if (work > 0) continue;
    Waiter waiter;
    distributor->add_to(waiter);
    waiter.wait(distributor->due(now) - now);
  }
  distributor->flush();
  const std::uint64_t results = distributor->board().progress().acknowledged;
  distributor.reset();
  collects.request_stop();
  collects.join();
  for (const pid_t pid : children) ::waitpid(pid, nullptr, 0);
  std::printf("{\"seconds\": %.6f, \"results\": %llu}\n", std::chrono::duration<double>(done - begun).count(),
              static_cast<unsigned long long>(results));
  return results == jobs ? 0 : 1;
}

int sequential(std::uint64_t jobs, Duration time) {
  ::prctl(PR_SET_TIMERSLACK, 1UL);
  const MonoTime begun = mono_now();
  for (std::uint64_t i = 0; i < jobs; ++i) work_for(time, mono_now());
  std::printf("{\"seconds\": %.6f}\n", std::chrono::duration<double>(mono_now() - begun).count());
  return 0;
}

/// Many workers in a few processes, connected and without jobs.
int idle(std::uint32_t workers, double seconds) {
  constexpr std::uint32_t kPerProcess = 250;
  const auto directory = must(PrivateDirectory::make());
  const std::string base = directory.path().string();
  const std::string at_distributor = "ipc://" + base + "/distributor.sock";
  std::vector<pid_t> children;
  for (std::uint32_t first = 0; first < workers; first += kPerProcess) {
    const pid_t pid = ::fork();
    if (pid != 0) {
      children.push_back(pid);
      continue;
    }
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    raise_descriptor_limit();
    std::vector<std::unique_ptr<JobWorker>> mine;
    for (std::uint32_t i = first; i < std::min(workers, first + kPerProcess); ++i) {
      JobWorkerConfig worker;
      worker.distributor = at_distributor;
      worker.name = "w" + std::to_string(i);
      mine.push_back(must(JobWorker::open(worker, [](const Job&) { return JobOutcome{}; })));
    }
    for (;;) {
      for (auto& one : mine) one->turn(mono_now());
      ::poll(nullptr, 0, 50);
    }
  }
  CollectorConfig collecting;
  collecting.endpoint = "ipc://" + base + "/collector.sock";
  collecting.publish = "ipc://" + base + "/results.sock";
  collecting.state_dir = base + "/collector";
  auto collector = must(Collector::open(collecting));
  bool over = false;
  Task task;
  task.spec.name = "load";
  task.jobs = must(GeneratedJobs::make(
      "load", [](std::uint64_t) { return std::nullopt; }, [&] { return over; }));
  std::vector<Task> tasks;
  tasks.push_back(std::move(task));
  DistributorConfig config;
  config.endpoint = at_distributor;
  config.collector = collecting.endpoint;
  config.state_dir = base + "/distributor";
  auto distributor = must(Distributor::open(config, std::move(tasks)));
  MonoTime begun{};
  double cpu_at_begin = 0;
  for (;;) {
    const MonoTime now = mono_now();
    const std::size_t work = distributor->turn(now) + collector->turn(now);
    if (begun == MonoTime{} && distributor->workers() == workers) {
      begun = now;
      cpu_at_begin = cpu_seconds();
    }
    if (begun != MonoTime{} && std::chrono::duration<double>(now - begun).count() > seconds) break;
    if (work > 0) continue;
    Waiter waiter;
    distributor->add_to(waiter);
    collector->add_to(waiter);
    waiter.wait(std::min(distributor->due(now), collector->due(now)) - now);
  }
  std::printf("{\"workers\": %zu, \"rss_mib\": %.1f, \"cpu_percent\": %.2f}\n", distributor->workers(),
              static_cast<double>(resident_kib()) / 1024, (cpu_seconds() - cpu_at_begin) / seconds * 100);
  for (const pid_t pid : children) ::kill(pid, SIGKILL);
  for (const pid_t pid : children) ::waitpid(pid, nullptr, 0);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  log::set_up(log::Level::kWarn);
  const std::vector<std::string> words(argv + 1, argv + argc);
  const auto number = [&](std::size_t i) { return std::strtoull(words.at(i).c_str(), nullptr, 10); };
  const auto micros = [&](std::size_t i) { return std::chrono::microseconds(number(i)); };
  if (words.size() == 5 && words[0] == "worker") {
    return worker(words[1], words[2], static_cast<std::uint32_t>(number(3)), micros(4));
  }
  if (words.size() == 5 && words[0] == "run") {
    return run(number(1), micros(2), static_cast<std::uint32_t>(number(3)), static_cast<std::uint32_t>(number(4)),
               argv[0]);
  }
  if (words.size() == 3 && words[0] == "sequential") return sequential(number(1), micros(2));
  if (words.size() == 3 && words[0] == "idle") {
    return idle(static_cast<std::uint32_t>(number(1)), static_cast<double>(number(2)));
  }
  std::fputs("usage: see the beginning of tests/bench/pipeline_load.cc\n", stderr);
  return 2;
}
