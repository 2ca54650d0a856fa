// A jar and three processes that eat from it. Each is woken by every cookie; who is too late finds none, because to
// look whether there is one and to take it is one step at the server.
#include <cstdio>

#include "examples/state/example.h"

using namespace example;

namespace {

constexpr int kCookies = 10;

Json eat(const Json& argument) {
  const auto state = state_at(argument);
  const auto jar = watch(argument, "cookies");
  int eaten = 0;
  const Json take_one = Json::parse(R"({
    "if": [{"key": "cookies", "op": "greater", "value": 0}],
    "then": [["decrement", "cookies"], ["increment", "eaten"]]
  })");
  while (need(state->get("eaten", 0)) < kCookies) {
    if (need(state->call("txn", take_one)).at("succeeded") == true) {
      ++eaten;
    } else {
      need(jar->next(mono_now() + 100ms));  // or somebody ate the last one
    }
  }
  return eaten;
}

}  // namespace

int main() {
  ProcessGroup group;
  const auto server = need(PrivateServer::start(group));
  const Json argument = {{"server", server.address()}};
  const auto eaters = need(group.start_each(process(eat, {}), {argument, argument, argument}));
  const auto state = state_at(argument);
  for (int i = 0; i < kCookies; ++i) need(state->increment("cookies", 1));

  int eaten = 0;
  for (const std::size_t eater : eaters) {
    group.wait_for(eater, {});
    eaten += group.ending(eater)->result.get<int>();
  }
  std::printf("baked %d, eaten %d, left %d\n", kCookies, eaten, need(state->get("cookies")).get<int>());
}
