// What a run is about comes from outside when everything is up already: no job is handed out before a metadata source
// has spoken. Then task, worker and collector hear it before their first job, and each job has it with it.
#include <atomic>
#include <set>

#include "examples/pipeline/example.h"
#include "pipeline/greeting.h"

using namespace example;

namespace {

const std::string kMetadataOfRun = R"({"factor":3,"title":"by three"})";

/// A program of its own in real life: "fantail-pipeline metadata" is one.
void tell_metadata(const std::string& distributor) {
  Context context;
  const auto client = need(rpc::RpcClient::connect(context, distributor, self_as(wire::Role::kClient, "source")));
  need(client->call(kMetadata, kMetadataOfRun));
}

JobOutcome multiply(const Job& job) {
  return done(need(parse_json(job.metadata)).at("factor").get<int>() * std::stoi(job.data));
}

}  // namespace

int main() {
  auto signals = begin();
  const Place place;

  std::string told_collector;
  int sum = 0;
  Collector::Hooks collecting;
  collecting.initialize = [&](std::string_view metadata) { told_collector = metadata; };
  collecting.on_result = [&](std::string_view, std::string_view line) {
    sum += need(parse_json(line)).at("result").get<int>();
    return std::string();
  };
  const auto collector = need(Collector::open(place.collector(), collecting));

  std::atomic<bool> spoken = false;
  std::atomic<bool> too_early = false;
  std::string told_task;
  std::vector<Task> tasks;
  tasks.push_back(task({.name = "multiply"}, numbers(10)));
  tasks[0].initialize = [&](std::string_view metadata) { told_task = metadata; };
  auto config = place.distributor();
  config.wait_for_metadata = true;
  const auto distributor = need(Distributor::open(std::move(config), std::move(tasks)));

  std::string told_worker;
  JobWorker::Hooks working;
  working.init_worker = [&](std::string_view metadata) { told_worker = metadata; };
  working.on_job = [&](const Job&) { too_early = too_early || !spoken; };
  std::vector<std::unique_ptr<JobWorker>> workers;
  workers.push_back(need(JobWorker::open(place.worker("worker"), multiply, working)));

  const std::jthread source([&, address = distributor->address()] {
    std::this_thread::sleep_for(200ms);  // the others are up and wait
    spoken = true;
    tell_metadata(address);
  });
  const bool complete = run(signals, *distributor, *collector, std::move(workers));

  const std::set<std::string> told = {told_task, told_worker, told_collector};
  return ended(complete && !too_early && told == std::set{kMetadataOfRun} && sum == 165,
               "task, worker and collector were told " + *told.begin() + ": " + std::to_string(sum));
}
