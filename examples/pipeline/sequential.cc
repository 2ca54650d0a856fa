// Jobs that must not overtake each other: the next one is handed out when the result of the last one is safe with the
// collector. Two workers of four threads each would have room for eight at a time.
#include <atomic>

#include "examples/pipeline/example.h"

using namespace example;

namespace {

constexpr int kJobs = 12;

std::atomic<int> value{1};

/// A step that is right only where nobody else is between its reading and its writing, and in the order of the jobs.
JobOutcome step(const Job& job) {
  const int before = value;
  std::this_thread::sleep_for(2ms);
  value = 2 * before + std::stoi(job.data);
  return done(value.load());
}

}  // namespace

int main() {
  auto signals = begin();
  const Place place;
  const auto collector = need(Collector::open(place.collector()));

  std::vector<std::uint64_t> order;
  Distributor::Hooks hooks;
  hooks.on_acknowledged = [&](const Acknowledgement& ack) { order.push_back(ack.job.number); };
  std::vector<Task> tasks;
  tasks.push_back(task({.name = "steps", .one_by_one = true}, numbers(kJobs)));
  const auto distributor = need(Distributor::open(place.distributor(), std::move(tasks), hooks));

  std::vector<std::unique_ptr<JobWorker>> workers;
  for (const char* name : {"left", "right"}) workers.push_back(need(JobWorker::open(place.worker(name, 4), step)));
  const bool complete = run(signals, *distributor, *collector, std::move(workers));

  int expected = 1;
  std::vector<std::uint64_t> in_order;
  for (int i = 1; i <= kJobs; ++i) {
    expected = 2 * expected + i;
    in_order.push_back(static_cast<std::uint64_t>(i));
  }
  return ended(complete && order == in_order && value == expected, std::to_string(order.size()) +
                                                                       " steps, one by one: " + std::to_string(value) +
                                                                       ", expected " + std::to_string(expected));
}
