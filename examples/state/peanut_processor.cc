// One makes peanuts faster than the others can eat. Who watches with a buffer gets each of them, in order; who watches
// live gets the newest when it has time.
#include <cstdio>

#include "examples/state/example.h"

using namespace example;

namespace {

constexpr int kPeanuts = 20;

/// Eats until the last one, with a break behind the second.
Json eat(const Json& argument) {
  WatcherConfig config;
  config.server = argument.at("server").get<std::string>();
  config.spec.keys = {"peanut"};
  config.from = 0;
  config.live = argument.at("how") == "live";
  const auto watcher = need(StateWatcher::open(std::move(config)));
  const auto everything_made = watch(argument, "made");
  Json eaten = Json::array();
  do {
    eaten.push_back(next_value(*watcher));
    if (eaten.size() == 2) next_value(*everything_made);
  } while (eaten.back() != kPeanuts);
  return eaten;
}

}  // namespace

int main() {
  ProcessGroup group;
  const auto server = need(PrivateServer::start(group));
  std::vector<Json> arguments;
  for (const char* how : {"buffered", "live"}) arguments.push_back({{"server", server.address()}, {"how", how}});
  const auto eaters = need(group.start_each(process(eat, {}), arguments));
  const auto state = state_at(arguments[0]);
  for (int peanut = 1; peanut <= kPeanuts; ++peanut) need(state->set("peanut", peanut));
  need(state->set("made", true));
  for (std::size_t i = 0; i < eaters.size(); ++i) {
    group.wait_for(eaters[i], {});
    std::printf("%s: %s\n", arguments[i]["how"].get<std::string>().c_str(),
                group.ending(eaters[i])->result.dump().c_str());
  }
}
