// One worker with one thread: it prepares itself once, in init_worker, and its jobs use what is there without a lock.
#include <set>

#include "examples/pipeline/example.h"

using namespace example;

namespace {

constexpr int kLast = 1000;

/// What every job needs and is expensive to make: which numbers are prime.
class Sieve {
 public:
  explicit Sieve(std::size_t last) : prime_(last + 1, true) {
    prime_[0] = prime_[1] = false;
    for (std::size_t i = 2; i <= last; ++i) {
      for (std::size_t k = 2 * i; prime_[i] && k <= last; k += i) prime_[k] = false;
    }
  }
  bool prime(std::size_t number) const { return prime_.at(number); }

 private:
  std::vector<bool> prime_;
};

}  // namespace

int main() {
  auto signals = begin();
  const Place place;

  int primes = 0;
  Collector::Hooks collecting;
  collecting.on_result = [&](std::string_view, std::string_view line) {
    primes += need(parse_json(line)).at("result").get<bool>() ? 1 : 0;
    return std::string();  // nothing to add to the acknowledgement
  };
  const auto collector = need(Collector::open(place.collector(), collecting));

  std::vector<Task> tasks;
  tasks.push_back(task({.name = "prime"}, numbers(kLast)));
  const auto distributor = need(Distributor::open(place.distributor(), std::move(tasks)));

  int made = 0;
  std::optional<Sieve> sieve;
  std::set<std::thread::id> threads;
  JobWorker::Hooks working;
  working.init_worker = [&](std::string_view) {
    sieve.emplace(kLast);
    ++made;
  };
  const auto is_prime = [&](const Job& job) {
    threads.insert(std::this_thread::get_id());
    return done(sieve->prime(std::stoul(job.data)));
  };
  std::vector<std::unique_ptr<JobWorker>> workers;
  workers.push_back(need(JobWorker::open(place.worker("worker"), is_prime, working)));
  const bool complete = run(signals, *distributor, *collector, std::move(workers));

  return ended(complete && primes == 168 && made == 1 && threads.size() == 1,
               std::to_string(primes) + " of " + std::to_string(kLast) +
                   " are prime; sieves made: " + std::to_string(made) + ", threads: " + std::to_string(threads.size()));
}
