// Requests instead of jobs: a service at one address, a worker that answers, a client that asks. The client may be
// first: its call waits for a worker that takes requests of its type.
#include "pipeline/service.h"

#include <unistd.h>

#include <csignal>

#include "common/rpc/rpc_worker.h"
#include "examples/pipeline/example.h"
#include "pipeline/greeting.h"

using namespace example;

namespace {

/// Each prime factor is a partial answer, how many there are is the final one.
std::string factors(rpc::Invocation& invocation) {
  int number = need(parse_json(invocation.arguments())).get<int>();
  int count = 0;
  for (int factor = 2; number > 1; ++factor) {
    for (; number % factor == 0; number /= factor, ++count) invocation.partial(std::to_string(factor));
  }
  return std::to_string(count);
}

/// The client is told what was thrown, and can branch on its type.
std::string divide(rpc::Invocation& invocation) {
  const auto [number, by] = need(parse_json(invocation.arguments())).get<std::pair<int, int>>();
  if (by == 0) throw rpc::Failed("division_by_zero", "there is no answer to " + std::to_string(number) + "/0");
  return std::to_string(number / by);
}

/// Until it is told to end: the loop of a worker inside of another program.
void work(std::stop_token stop, Context& context, const std::string& service) {
  rpc::WorkerOptions options;
  options.address = service;
  options.name = "calculator";
  options.types = {"arithmetic"};
  options.slots = 2;
  const auto worker = need(rpc::RpcWorker::open(context, options));
  worker->serve("factors", factors);
  worker->serve("divide", divide, rpc::RpcWorker::Where::kLoop);  // too quick for a thread
  while (!stop.stop_requested()) {
    if (worker->turn(mono_now()) == 0) worker->wait(mono_now());
  }
}

}  // namespace

int main() {
  auto signals = begin();
  const Place place;
  ServiceConfig config;
  config.endpoint = place.address("service");
  const auto service = need(Service::open(config));

  Context context;
  std::jthread serving([&] { service->run(signals); });
  std::jthread working([&](std::stop_token stop) { work(std::move(stop), context, config.endpoint); });

  const auto client = need(rpc::RpcClient::connect(context, config.endpoint, self_as(wire::Role::kClient, "somebody")));
  std::string product;
  const auto count = need(client->call(
      "factors", "360", {.timeout = 5s},
      [&](std::string_view factor) { product += (product.empty() ? "" : "*") + std::string(factor); }, "arithmetic"));
  const auto half = need(client->call("divide", "[84,2]", {}, {}, "arithmetic"));
  const auto nothing = client->call("divide", "[1,0]", {}, {}, "arithmetic");
  const std::string failure = nothing ? "none" : nothing.error().type;

  // The only one who waits for signals ends with the first; the worker is woken by its goodbye.
  working.request_stop();
  ::kill(::getpid(), SIGTERM);
  serving.join();
  working.join();
  return ended(product == "2*2*2*3*3*5" && count == "6" && half == "42" && failure == "division_by_zero",
               "360 = " + product + ", 84/2 = " + half + ", 1/0: " + failure);
}
