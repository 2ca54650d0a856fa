// What scripts/bench-state runs against fantail-state and, where no tool of its own does it, against redis.
//
//   state_load set ADDRESS CLIENTS REQUESTS VALUE_BYTES KEYS     each client sets, waits for the answer, sets again
//   state_load fill ADDRESS KEYS VALUE_BYTES                     KEYS new keys, many in one request
//   state_load snapshot ADDRESS                                  one watcher that needs the namespace starts
//   state_load latency ADDRESS UPDATES PAUSE_US                  from before set() to the watcher of another client
//   state_load redis-latency PORT UPDATES PAUSE_US               from before PUBLISH to the subscriber
//
// Each prints one JSON line. `set` with one client uses the library as a program does; with many it is one thread with
// a bare connection for each, as redis-benchmark has it: 50 sockets of libzmq would cost more than the server. Times
// are of CLOCK_MONOTONIC; of the latencies the first tenth is warm-up.

#include <hiredis/hiredis.h>
#include <sys/epoll.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/base/clock.h"
#include "common/base/unique_fd.h"
#include "common/json/json.h"
#include "common/transport/endpoint.h"
#include "state/client.h"
#include "state/watcher.h"
#include "tests/bench/zmtp_client.h"

namespace {

using namespace fantail;
using namespace fantail::state;

[[noreturn]] void give_up(const std::string& why) {
  std::fprintf(stderr, "state_load: %s\n", why.c_str());
  std::exit(1);
}

template <class T>
T must(rpc::CallResult<T> result) {
  if (!result) give_up(result.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}
template <class T>
T must(Result<T> result) {
  if (!result) give_up(result.error().context);
  return std::move(*result);
}

std::uint64_t number(std::string_view text) {
  std::uint64_t value = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc{}) give_up("a number is wanted");
  return value;
}

double seconds(Duration d) { return std::chrono::duration<double>(d).count(); }

std::string key_of(std::uint64_t n) {
  char text[32];
  std::snprintf(text, sizeof text, "key:%012llu", static_cast<unsigned long long>(n));
  return text;
}

/// Different in each key and not to be shortened.
std::string value_of(std::uint64_t n, std::size_t bytes) {
  std::string value(bytes, ' ');
  std::uint64_t state = n + 1;
  for (char& c : value) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    c = static_cast<char>('a' + (state >> 59) % 26);
  }
  return value;
}

void print_times(std::vector<Duration> took, const char* more = "") {
  took.erase(took.begin(), took.begin() + static_cast<std::ptrdiff_t>(took.size() / 10));
  std::sort(took.begin(), took.end());
  const auto at = [&](double share) {
    return seconds(took[std::min(took.size() - 1, static_cast<std::size_t>(share * static_cast<double>(took.size())))]);
  };
  std::printf("{\"measured\": %zu, \"p50_ms\": %.4f, \"p90_ms\": %.4f, \"p99_ms\": %.4f, \"max_ms\": %.4f%s}\n",
              took.size(), at(0.5) * 1e3, at(0.9) * 1e3, at(0.99) * 1e3, seconds(took.back()) * 1e3, more);
}

// ---- set

/// One client: the library as a program uses it.
int set_alone(const std::string& address, std::uint64_t requests, const std::string& value, std::uint64_t keys) {
  auto client = must(StateClient::open({.server = address}));
  must(client->set("key", value));
  std::vector<Duration> took;
  took.reserve(requests);
  std::uint64_t random = 1;
  const MonoTime begin = mono_now();
  for (std::uint64_t i = 0; i < requests; ++i) {
    random = random * 6364136223846793005U + 1442695040888963407U;
    const MonoTime before = mono_now();
    must(client->set(key_of((random >> 20) % keys), value));
    took.push_back(mono_now() - before);
  }
  const double all = seconds(mono_now() - begin);
  char more[128];
  std::snprintf(more, sizeof more, ", \"requests\": %llu, \"per_s\": %.0f", static_cast<unsigned long long>(requests),
                static_cast<double>(requests) / all);
  print_times(std::move(took), more);
  return 0;
}

int set_with_many(const std::string& address, std::size_t clients, std::uint64_t requests, const std::string& value,
                  std::uint64_t keys) {
  const Endpoint at = must(parse_endpoint(address));
  std::vector<std::unique_ptr<bench::ZmtpClient>> connections;
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  for (std::size_t i = 0; i < clients; ++i) {
    connections.push_back(std::make_unique<bench::ZmtpClient>(at.port.value_or(0)));
    epoll_event wanted{.events = EPOLLIN, .data = {.u64 = i}};
    ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, connections.back()->fd(), &wanted);
  }
  std::uint64_t random = 1;
  const auto ask = [&](bench::ZmtpClient& connection) {
    random = random * 6364136223846793005U + 1442695040888963407U;
    // Like redis-benchmark, whose request is ready but for the digits of the key.
    connection.request("set", "{\"namespace\":\"default\",\"key\":\"" + key_of((random >> 20) % keys) +
                                  "\",\"value\":\"" + value + "\"}");
  };
  const MonoTime begin = mono_now();
  std::uint64_t sent = 0;
  for (; sent < std::min<std::uint64_t>(clients, requests); ++sent) ask(*connections[sent]);
  std::vector<epoll_event> ready(clients);
  for (std::uint64_t answered = 0; answered < requests;) {
    const int n = ::epoll_wait(epoll.get(), ready.data(), static_cast<int>(ready.size()), 10'000);
    if (n == 0) give_up("no answer within 10 s");
    for (int i = 0; i < n; ++i) {
      bench::ZmtpClient& connection = *connections[ready[static_cast<std::size_t>(i)].data.u64];
      if (!connection.answer()) give_up("a set was refused");
      ++answered;
      if (sent < requests) ask(connection), ++sent;
    }
  }
  const double all = seconds(mono_now() - begin);
  std::printf("{\"requests\": %llu, \"per_s\": %.0f}\n", static_cast<unsigned long long>(requests),
              static_cast<double>(requests) / all);
  return 0;
}

// ---- one million keys

int fill(const std::string& address, std::uint64_t keys, std::size_t value_bytes) {
  auto client = must(StateClient::open({.server = address, .timeout = 60s}));
  constexpr std::uint64_t kTogether = 5000;
  std::uint64_t bytes = 0;
  const MonoTime begin = mono_now();
  for (std::uint64_t at = 0; at < keys; at += kTogether) {
    Json values = Json::object();
    for (std::uint64_t n = at; n < std::min(keys, at + kTogether); ++n) {
      Json value = value_of(n, value_bytes);
      bytes += key_of(n).size() + to_text(value).size();
      values[key_of(n)] = std::move(value);
    }
    must(client->update(values));
  }
  std::printf("{\"keys\": %llu, \"raw_bytes\": %llu, \"seconds\": %.3f}\n", static_cast<unsigned long long>(keys),
              static_cast<unsigned long long>(bytes), seconds(mono_now() - begin));
  return 0;
}

/// The watcher wants to know when a key is there that is not: it has to know all.
int snapshot(const std::string& address) {
  auto client = must(StateClient::open({.server = address, .timeout = 60s}));
  const Json info = must(client->call("info", {}, true));
  const MonoTime begin = mono_now();
  WatcherConfig config;
  config.server = address;
  config.timeout = 120s;
  config.spec.keys = {"never"};
  config.spec.condition = Condition::kAvailable;
  auto watcher = must(StateWatcher::open(std::move(config)));
  const double all = seconds(mono_now() - begin);
  std::printf("{\"keys\": %llu, \"raw_bytes\": %llu, \"seconds\": %.3f}\n",
              static_cast<unsigned long long>(info["keys"]), static_cast<unsigned long long>(info["bytes"]), all);
  return 0;
}

// ---- latency

/// Begins each exchange when the one before has arrived and PAUSE_US have passed.
template <class Send, class Receive>
int measure(std::uint64_t updates, Duration pause, const Send& send, const Receive& receive) {
  std::atomic<std::uint64_t> seen{0};
  std::vector<Duration> took(updates);
  std::vector<MonoTime> begun(updates);
  std::thread other([&] {
    for (std::uint64_t i = 0; i < updates; ++i) {
      const std::uint64_t got = receive();
      if (got != i) give_up("update " + std::to_string(got) + " came instead of " + std::to_string(i));
      took[i] = mono_now() - begun[i];
      seen.store(i + 1, std::memory_order_release);
      seen.notify_one();
    }
  });
  for (std::uint64_t i = 0; i < updates; ++i) {
    begun[i] = mono_now();
    send(i);
    for (std::uint64_t now = seen.load(std::memory_order_acquire); now <= i;
         now = seen.load(std::memory_order_acquire)) {
      seen.wait(now, std::memory_order_acquire);
    }
    std::this_thread::sleep_for(pause);
  }
  other.join();
  print_times(std::move(took));
  return 0;
}

int latency(const std::string& address, std::uint64_t updates, Duration pause) {
  auto client = must(StateClient::open({.server = address}));
  must(client->set("latency", "begins"));
  WatcherConfig config;
  config.server = address;
  config.spec.keys = {"latency"};
  auto watcher = must(StateWatcher::open(std::move(config)));
  return measure(
      updates, pause, [&](std::uint64_t i) { must(client->set("latency", i)); },
      [&] {
        const auto event = must(watcher->next(mono_now() + 30s));
        if (!event || !event->change) give_up("no update came within 30 s");
        return must(parse_json(event->change->edits.at(0).after.value_or("null"))).get<std::uint64_t>();
      });
}

int redis_latency(int port, std::uint64_t updates, Duration pause) {
  redisContext* publisher = redisConnect("127.0.0.1", port);
  redisContext* subscriber = redisConnect("127.0.0.1", port);
  if (publisher == nullptr || subscriber == nullptr || publisher->err != 0 || subscriber->err != 0) {
    give_up("redis does not listen at 127.0.0.1:" + std::to_string(port));
  }
  const auto answer_to = [](redisContext* context, void* reply) {
    if (reply == nullptr) give_up(std::string("redis: ") + context->errstr);
    return std::unique_ptr<redisReply, decltype(&freeReplyObject)>(static_cast<redisReply*>(reply), freeReplyObject);
  };
  answer_to(subscriber, redisCommand(subscriber, "SUBSCRIBE latency"));
  const int rc = measure(
      updates, pause,
      [&](std::uint64_t i) {
        answer_to(publisher, redisCommand(publisher, "PUBLISH latency %llu", static_cast<unsigned long long>(i)));
      },
      [&] {
        void* reply = nullptr;
        redisGetReply(subscriber, &reply);
        const auto message = answer_to(subscriber, reply);
        return number({message->element[2]->str, message->element[2]->len});
      });
  redisFree(publisher);
  redisFree(subscriber);
  return rc;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> a(argv + 1, argv + argc);
  const auto is = [&](std::string_view mode, std::size_t arguments) {
    return a.size() == arguments + 1 && a[0] == mode;
  };
  const auto n = [&](std::size_t i) { return number(a[i]); };
  if (is("set", 5)) {
    const std::string value = value_of(0, n(4));
    return n(2) == 1 ? set_alone(a[1], n(3), value, n(5)) : set_with_many(a[1], n(2), n(3), value, n(5));
  }
  if (is("fill", 3)) return fill(a[1], n(2), n(3));
  if (is("snapshot", 1)) return snapshot(a[1]);
  if (is("latency", 3)) return latency(a[1], n(2), std::chrono::microseconds(n(3)));
  if (is("redis-latency", 3)) {
    return redis_latency(static_cast<int>(n(1)), n(2), std::chrono::microseconds(n(3)));
  }
  give_up("arguments: see the beginning of tests/bench/state_load.cc");
}
