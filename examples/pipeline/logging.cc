// A log of one's own: what happens at each component is told to its hooks, on its own thread. One of the jobs fails and
// is given up.
#include <map>
#include <mutex>

#include "examples/pipeline/example.h"

using namespace example;

namespace {

class Log {
 public:
  void say(const std::string& who, const std::string& what) {
    const std::scoped_lock lock(mutex_);
    ++lines_[who];
    std::printf("%-11s  %s\n", who.c_str(), what.c_str());
  }
  /// Once everybody has ended.
  const std::map<std::string, int>& lines() const { return lines_; }

 private:
  std::mutex mutex_;
  std::map<std::string, int> lines_;  // guarded by mutex_
};

JobOutcome square(const Job& job) {
  const int number = std::stoi(job.data);
  return done(number * number);
}

}  // namespace

int main() {
  auto signals = begin();
  const Place place;
  Log log;

  Collector::Hooks collecting;
  collecting.initialize = [&](std::string_view) { log.say("collector", "a run has begun"); };
  collecting.on_result = [&](std::string_view id, std::string_view line) {
    const std::string result = to_text(need(parse_json(line)).at("result"));
    log.say("collector", std::string(id) + " is " + result);
    return R"({"is":)" + result + "}";  // for the acknowledgement
  };
  collecting.on_finished = [&] { log.say("collector", "that was all"); };
  const auto collector = need(Collector::open(place.collector(), collecting));

  std::vector<Task> tasks;
  tasks.push_back(task({.name = "square"}, {"1", "2", "three", "4"}));
  tasks[0].initialize = [&](std::string_view) { log.say("task", "before the first job"); };
  tasks[0].on_acknowledged = [&](const Acknowledgement& ack) {
    log.say("task", "job " + std::to_string(ack.job.number) + " by " + ack.worker + ": " + ack.data);
  };
  Distributor::Hooks distributing;
  distributing.on_acknowledged = [&](const Acknowledgement& ack) {
    log.say("distributor", "acknowledgement " + std::to_string(ack.ack));
  };
  distributing.on_dead = [&](JobId, int exit, const std::string& letter) {
    log.say("distributor",
            "given up, exit " + std::to_string(exit) + ": " + need(parse_json(letter)).at("error").get<std::string>());
  };
  auto config = place.distributor();
  config.details = true;  // worker and data of acknowledgements
  const auto distributor = need(Distributor::open(std::move(config), std::move(tasks), distributing));

  JobWorker::Hooks working;
  working.init_worker = [&](std::string_view) { log.say("worker", "joined"); };
  working.init_thread = [&](std::uint32_t index) { log.say("worker", "thread " + std::to_string(index)); };
  working.on_job = [&](const Job& job) { log.say("worker", "got " + job.id + ", '" + job.data + "'"); };
  std::vector<std::unique_ptr<JobWorker>> workers;
  workers.push_back(need(JobWorker::open(place.worker("worker", 2), square, working)));
  run(signals, *distributor, *collector, std::move(workers));

  const auto jobs = distributor->board().progress();
  const std::map<std::string, int> expected = {{"collector", 5}, {"distributor", 4}, {"task", 4}, {"worker", 7}};
  return ended(distributor->complete() && log.lines() == expected && jobs.dead == 1,
               std::to_string(jobs.acknowledged) + " of " + std::to_string(jobs.known) + " jobs done, " +
                   std::to_string(jobs.dead) + " given up");
}
