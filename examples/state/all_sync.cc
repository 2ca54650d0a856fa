// Processes that go on only when all have arrived: a counter that everybody watches.
#include <cstdio>

#include "examples/state/example.h"

using namespace example;

namespace {

constexpr int kProcesses = 8;
constexpr int kRounds = 3;

Json walk(const Json& argument) {
  const auto state = state_at(argument);
  Json met = Json::array();
  for (int round = 0; round < kRounds; ++round) {
    const std::string gate = "gate/" + std::to_string(round);
    need(state->increment(gate, 1));
    const auto watcher = watch(argument, gate);
    while (next_value(*watcher) < kProcesses) continue;
    met.push_back(need(state->get(gate)));  // nobody has gone through before all were here
  }
  return met;
}

}  // namespace

int main() {
  ProcessGroup group;
  const auto server = need(PrivateServer::start(group));
  const Json argument = {{"server", server.address()}};
  int together = 0;
  for (const std::size_t walker : need(group.start_each(process(walk, {}), std::vector<Json>(kProcesses, argument)))) {
    group.wait_for(walker, {});
    together += group.ending(walker)->result == Json(std::vector<int>(kRounds, kProcesses));
  }
  std::printf("%d of %d passed %d gates together\n", together, kProcesses, kRounds);
}
