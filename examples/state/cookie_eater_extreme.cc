// A hundred processes count one number up and down at the same time, and it ends where arithmetic says.
#include <cstdio>

#include "examples/state/example.h"

using namespace example;

namespace {

Json eat_and_bake(const Json& argument) {
  const auto state = state_at(argument);
  for (int i = 0; i < 5; ++i) {
    need(state->decrement("cookies", 100));
    need(state->increment("cookies", 1));
  }
  return {};
}

}  // namespace

int main() {
  constexpr int kProcesses = 100;
  ProcessGroup group;
  const auto server = need(PrivateServer::start(group));
  const Json argument = {{"server", server.address()}};
  const auto eaters = need(group.start_each(process(eat_and_bake, {}), std::vector<Json>(kProcesses, argument)));
  for (const std::size_t eater : eaters) {
    group.wait_for(eater, {});
    if (!group.ending(eater)->ok()) return 1;
  }
  std::printf("%d, expected %d\n", need(state_at(argument)->get("cookies")).get<int>(), kProcesses * 5 * (1 - 100));
}
