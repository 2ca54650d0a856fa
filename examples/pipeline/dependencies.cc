// A task that begins when another one is done: nothing is served before the last dish is cooked. One function does the
// jobs of both; it knows them by the name of the task.
#include <mutex>
#include <set>

#include "examples/pipeline/example.h"

using namespace example;

namespace {

const std::vector<std::string> kDishes = {"soup", "rice", "beans", "bread", "cake", "tea"};
const std::vector<std::string> kGuests = {"Ada", "Bob", "Cem", "Dai"};

class Kitchen {
 public:
  JobOutcome work(const Job& job) {
    if (job.task->name == "cook") {
      std::this_thread::sleep_for(5ms);
      const std::scoped_lock lock(mutex_);
      cooked_.insert(job.data);
      return done(job.data + " is ready");
    }
    const std::scoped_lock lock(mutex_);
    return done({{"guest", job.data}, {"dishes", cooked_.size()}});
  }

 private:
  std::mutex mutex_;
  std::set<std::string> cooked_;  // guarded by mutex_
};

}  // namespace

int main() {
  auto signals = begin();
  const Place place;

  std::size_t satisfied = 0;
  Collector::Hooks collecting;
  collecting.on_result = [&](std::string_view, std::string_view line) {
    const Json record = need(parse_json(line));
    if (record.at("task") == "serve") satisfied += record["result"].at("dishes") == kDishes.size() ? 1 : 0;
    return std::string();
  };
  const auto collector = need(Collector::open(place.collector(), collecting));

  std::vector<Task> tasks;
  tasks.push_back(task({.name = "serve", .after = {"cook"}}, kGuests));  // the order of the list does not matter
  tasks.push_back(task({.name = "cook"}, kDishes));
  std::vector<std::string> order;  // of the tasks whose jobs are done
  for (Task& each : tasks) {
    each.on_acknowledged = [&order, name = each.spec.name](const Acknowledgement&) {
      if (order.empty() || order.back() != name) order.push_back(name);
    };
  }
  const auto distributor = need(Distributor::open(place.distributor(), std::move(tasks)));

  Kitchen kitchen;
  std::vector<std::unique_ptr<JobWorker>> workers;
  for (const char* name : {"cook", "waiter"}) {
    const auto work = [&](const Job& job) { return kitchen.work(job); };
    workers.push_back(need(JobWorker::open(place.worker(name, 2), work)));
  }
  const bool complete = run(signals, *distributor, *collector, std::move(workers));

  const bool in_order = order == std::vector<std::string>{"cook", "serve"};
  return ended(complete && in_order && satisfied == kGuests.size(),
               std::to_string(satisfied) + " of " + std::to_string(kGuests.size()) + " guests were served all " +
                   std::to_string(kDishes.size()) + " dishes");
}
