// What a function in another process throws arrives here with type, message and trace; what is worth another try gets
// it.
#include <cstdio>

#include "examples/state/example.h"

using namespace example;

namespace {

Json open_shop(const Json& argument) {
  if (need(state_at(argument)->increment("tries", 1)) < 3) throw std::runtime_error("the key does not turn");
  try {
    throw std::out_of_range("nobody has baked");
  } catch (...) {
    std::throw_with_nested(std::logic_error("the shop is empty"));
  }
}

}  // namespace

int main() {
  ProcessGroup group(500ms, [](std::size_t, const Ending& ending, Duration) {
    std::printf("try %u: %s\n", ending.tries, ending.exception->message.c_str());
  });
  const auto server = need(PrivateServer::start(group));
  const RetryPolicy retry{.retries = std::nullopt, .delay = 1ms, .exceptions = {"std::runtime_error"}};
  const std::size_t shop = need(group.start(process(open_shop, {{"server", server.address()}}), retry));
  group.wait_for(shop, {});
  const RemoteException& thrown = *group.ending(shop)->exception;
  std::printf("try %u: %s\n%s\n", group.ending(shop)->tries, thrown.message.c_str(), thrown.trace.c_str());
}
