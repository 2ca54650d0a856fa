// Processes that start processes, three levels deep, all on one dictionary. When the first one ends, all do.
#include <cstdio>

#include "examples/state/example.h"

using namespace example;

namespace {

Json grow(const Json& argument) {
  const int level = argument.at("level").get<int>();
  need(state_at(argument)->increment("level/" + std::to_string(level), 1));
  if (level == 3) return 1;
  Json below = argument;
  below["level"] = level + 1;
  ProcessGroup group;
  int processes = 1;
  for (const std::size_t child : need(group.start_each(process(grow, {}), {below, below}))) {
    group.wait_for(child, {});
    processes += group.ending(child)->result.get<int>();
  }
  return processes;
}

}  // namespace

int main() {
  ProcessGroup group;
  const auto server = need(PrivateServer::start(group));
  const Json argument = {{"server", server.address()}, {"level", 1}};
  const std::size_t first = need(group.start(process(grow, argument)));
  group.wait_for(first, {});
  std::printf("%d processes, of each level: %s\n", group.ending(first)->result.get<int>(),
              need(state_at(argument)->items()).dump().c_str());
}
