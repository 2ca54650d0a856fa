// One function over many items, in three processes: results in the order of the items, looked at twice, and as fast as
// the processes together.
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "examples/pipeline/example.h"
#include "pipeline/map.h"

using namespace example;

namespace {

std::string power(std::string_view item) {
  const auto n = std::stoull(std::string(item));
  return std::to_string(n * n * n);
}

/// A worker in a process of its own; it waits for the map to be there.
pid_t start_worker(const std::string& address, int number) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  auto worker =
      need(JobWorker::open({.distributor = address, .name = "worker " + std::to_string(number)}, Map::worker(power)));
  while (!worker->ended()) {
    const MonoTime now = mono_now();
    if (worker->turn(now) > 0) continue;
    Waiter waiter;
    worker->add_to(waiter);
    waiter.wait(worker->due(now) - now);
  }
  worker.reset();  // says goodbye
  ::_exit(0);
}

}  // namespace

int main() {
  log::set_up(log::Level::kError);
  const auto directory = need(PrivateDirectory::make());
  const std::string address = "ipc://" + (directory.path() / "map").string();
  std::vector<pid_t> workers;
  for (int i = 0; i < 3; ++i) workers.push_back(start_worker(address, i));

  std::vector<std::string> items;
  for (int i = 0; i < 100'000; ++i) items.push_back(std::to_string(i));
  const auto map = need(Map::start({.endpoint = address, .chunk = 500}, items));
  bool same = true;
  for (std::size_t i = 0; i < map->size(); ++i) same &= need(map->result(i)) == power(items[i]);
  same &= need(map->results()).at(99'999) == power("99999");
  for (const pid_t pid : workers) ::waitpid(pid, nullptr, 0);
  std::printf("%zu results, %s\n", map->size(), same ? "as if they were made in a row" : "WRONG");
  return same ? 0 : 1;
}
