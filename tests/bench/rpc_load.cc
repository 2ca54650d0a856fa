// What scripts/bench-pipeline runs against fantail-pipeline, and the bare libzmq that it is compared with.
//
//   rpc_load worker ADDRESS              a worker of a service that answers "echo" in its loop, until it is ended
//   rpc_load calls ADDRESS CALLS PAUSE_US     one client: asks, waits for the answer, asks again; a pause between, or 0
//   rpc_load bare ADDRESS CALLS          the same with a DEALER and a ROUTER of libzmq in two processes, as they are
//
// `calls` and `bare` print one JSON line: round trips per second, and percentiles of their time in microseconds. Times
// are of CLOCK_MONOTONIC; the first tenth is warm-up.

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <vector>
#include <zmq.hpp>

#include "common/base/log.h"
#include "common/rpc/rpc_client.h"
#include "common/rpc/rpc_worker.h"

namespace {

using namespace fantail;

constexpr std::size_t kBytes = 100;  // of a request and of an answer

[[noreturn]] void give_up(const std::string& why) {
  std::fprintf(stderr, "rpc_load: %s\n", why.c_str());
  std::exit(1);
}

std::uint64_t number(std::string_view text) {
  std::uint64_t value = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc{}) give_up("a number is wanted");
  return value;
}

/// Does `once` so many times and prints how long it took.
void measure(std::uint64_t calls, Duration pause, const std::function<void()>& once) {
  std::vector<double> took;
  took.reserve(calls);
  const std::uint64_t warm_up = calls / 10;
  MonoTime begin{};
  for (std::uint64_t i = 0; i < calls + warm_up; ++i) {
    if (i == warm_up) begin = mono_now();
    const MonoTime asked = mono_now();
    once();
    const MonoTime answered = mono_now();
    if (i >= warm_up) took.push_back(std::chrono::duration<double, std::micro>(answered - asked).count());
    if (pause > Duration::zero()) {
      while (mono_now() < asked + pause) ::usleep(20);
    }
  }
  const double seconds = std::chrono::duration<double>(mono_now() - begin).count();
  std::sort(took.begin(), took.end());
  const auto at = [&](double share) {
    return took[static_cast<std::size_t>(share * static_cast<double>(took.size() - 1))];
  };
  std::printf(R"({"calls": %zu, "per_s": %.0f, "p50_us": %.1f, "p99_us": %.1f})"
              "\n",
              took.size(), static_cast<double>(took.size()) / seconds, at(0.5), at(0.99));
}

int worker(const std::string& address) {
  auto signals = StopSignals::block();
  Context context;
  rpc::WorkerOptions options;
  options.address = address;
  options.name = "rpc_load:" + std::to_string(::getpid());
  options.slots = 8;
  auto opened = rpc::RpcWorker::open(context, options);
  if (!opened) give_up(opened.error().context);
  (*opened)->serve(
      "echo", [](rpc::Invocation& i) { return i.arguments(); }, rpc::RpcWorker::Where::kLoop);
  (*opened)->serve("threaded", [](rpc::Invocation& i) { return i.arguments(); });
  return (*opened)->run(*signals);
}

int calls(const std::string& address, std::uint64_t count, Duration pause, const char* method) {
  Context context;
  wire::Peer self;
  self.role = wire::Role::kClient;
  self.instance = random_id<InstanceId>();
  auto client = rpc::RpcClient::connect(context, address, self);
  if (!client) give_up(client.error().context);
  const std::string text(kBytes, 'x');
  measure(count, pause, [&] {
    const auto answer = (*client)->call(method, text, {30s, false});
    if (!answer) give_up(answer.error().message);
    if (*answer != text) give_up("another answer");
  });
  return 0;
}

int bare(const std::string& address, std::uint64_t count) {
  const pid_t echo = ::fork();
  if (echo == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    zmq::context_t context;
    zmq::socket_t router(context, zmq::socket_type::router);
    router.bind(address);
    for (;;) {
      for (bool more = true; more;) {
        zmq::message_t part;
        if (!router.recv(part)) break;
        more = part.more();
        router.send(part, more ? zmq::send_flags::sndmore : zmq::send_flags::none);
      }
    }
  }
  {
    zmq::context_t context;
    zmq::socket_t dealer(context, zmq::socket_type::dealer);
    dealer.set(zmq::sockopt::linger, 0);
    dealer.connect(address);
    const std::string text(kBytes, 'x');
    measure(count, {}, [&] {
      dealer.send(zmq::buffer(text));
      zmq::message_t answer;
      if (!dealer.recv(answer) || answer.size() != text.size()) give_up("another answer");
    });
  }
  ::kill(echo, SIGKILL);
  ::waitpid(echo, nullptr, 0);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  log::set_up(log::Level::kWarn);
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() == 2 && words[0] == "worker") return worker(words[1]);
  if (words.size() == 4 && words[0] == "calls") {
    return calls(words[1], number(words[2]), std::chrono::microseconds(number(words[3])), "echo");
  }
  if (words.size() == 4 && words[0] == "threaded") {
    return calls(words[1], number(words[2]), std::chrono::microseconds(number(words[3])), "threaded");
  }
  if (words.size() == 3 && words[0] == "bare") return bare(words[1], number(words[2]));
  give_up("see the head of tests/bench/rpc_load.cc for its uses");
}
