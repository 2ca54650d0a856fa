// Any computation can be one step: atomic() computes on a copy and begins again when somebody else was faster. An
// exception in it leaves everything as it was.
#include <cstdio>

#include "examples/state/example.h"

using namespace example;

namespace {

constexpr int kTimes = 20;

/// Moves money between two accounts and counts; no single operation of the server does that.
Json transfer(const Json& argument) {
  const auto state = state_at(argument);
  for (int i = 0; i < kTimes; ++i) {
    need(state->atomic(
        [](Json& items) -> Json {
          const int amount = items.at("a").get<int>() / 10 + 1;
          items["a"] = items["a"].get<int>() - amount;
          items["b"] = items["b"].get<int>() + amount;
          items["transfers"] = items.value("transfers", 0) + 1;
          return amount;
        },
        10'000));
  }
  return {};
}

}  // namespace

int main() {
  ProcessGroup group;
  const auto server = need(PrivateServer::start(group));
  const Json argument = {{"server", server.address()}};
  const auto state = state_at(argument);
  need(state->update({{"a", 1'000'000}, {"b", 0}}));
  const auto clerks = need(group.start_each(process(transfer, {}), std::vector<Json>(5, argument)));
  for (const std::size_t clerk : clerks) {
    group.wait_for(clerk, {});
    if (!group.ending(clerk)->ok()) return 1;
  }
  try {
    need(state->atomic([](Json& items) -> Json {
      items.clear();
      throw std::runtime_error("changed my mind");
    }));
  } catch (const std::runtime_error& e) {
    std::printf("%s; ", e.what());
  }
  const Json items = need(state->items());
  std::printf("%d transfers, sum %d\n", items["transfers"].get<int>(), items["a"].get<int>() + items["b"].get<int>());
}
