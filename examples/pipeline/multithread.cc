// One worker that does ten jobs at a time. Each of its threads makes what is its own in init_thread, before its first
// job: a random generator, which must not be shared.
#include <atomic>
#include <random>
#include <set>

#include "examples/pipeline/example.h"

using namespace example;

namespace {

constexpr int kThreads = 10;
constexpr int kJobs = 50;
constexpr int kThrows = 20'000;

thread_local std::optional<std::mt19937> random_bits;
thread_local std::uint32_t thread_index = 0;

std::atomic<int> begun{0};

/// Throws darts at a square and counts those in the circle. The first job of each thread waits for the other threads.
JobOutcome throw_darts(const Job&) {
  ++begun;
  const MonoTime patience = mono_now() + 2s;
  while (begun < kThreads && mono_now() < patience) std::this_thread::sleep_for(1ms);
  if (begun < kThreads) throw std::runtime_error("there are less than ten jobs at a time");

  std::uniform_real_distribution<double> place(-1, 1);
  int inside = 0;
  for (int i = 0; i < kThrows; ++i) {
    const double x = place(*random_bits);
    const double y = place(*random_bits);
    inside += x * x + y * y < 1 ? 1 : 0;
  }
  return done({{"thread", thread_index}, {"inside", inside}});
}

}  // namespace

int main() {
  auto signals = begin();
  const Place place;

  std::set<std::uint32_t> threads;
  int results = 0;
  double inside = 0;
  Collector::Hooks collecting;
  collecting.on_result = [&](std::string_view, std::string_view line) {
    const Json result = need(parse_json(line)).at("result");
    threads.insert(result.at("thread").get<std::uint32_t>());
    inside += result.at("inside").get<int>();
    ++results;
    return std::string();
  };
  const auto collector = need(Collector::open(place.collector(), collecting));

  std::vector<Task> tasks;
  tasks.push_back(task({.name = "darts"}, numbers(kJobs)));
  const auto distributor = need(Distributor::open(place.distributor(), std::move(tasks)));

  JobWorker::Hooks working;
  working.init_thread = [](std::uint32_t index) {
    thread_index = index;
    random_bits.emplace(index);
  };
  std::vector<std::unique_ptr<JobWorker>> workers;
  workers.push_back(need(JobWorker::open(place.worker("worker", kThreads), throw_darts, working)));
  const bool complete = run(signals, *distributor, *collector, std::move(workers));

  const double pi = 4 * inside / (double{kJobs} * kThrows);
  return ended(complete && results == kJobs && threads.size() == kThreads && pi > 3.1 && pi < 3.2,
               std::to_string(results) + " jobs by " + std::to_string(threads.size()) + " threads: pi is about " +
                   std::to_string(pi).substr(0, 3));
}
