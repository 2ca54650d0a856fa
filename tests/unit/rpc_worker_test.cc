#include "common/rpc/rpc_worker.h"

#include <gmock/gmock.h>

#include <atomic>
#include <functional>
#include <thread>

#include "common/base/log.h"
#include "common/rpc/rpc_client.h"
#include "common/rpc/worker_host.h"
#include "tests/support/scratch_directory.h"

namespace fantail::rpc {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr Duration kDeadline = 60s;

/// A worker on a thread of its own, and whoever calls it on the test's.
class RpcWorkerTest : public testing::Test {
 protected:
  RpcWorkerTest() { log::set_up(log::Level::kOff); }
  ~RpcWorkerTest() override {
    stop();
    log::set_up(log::Level::kInfo);
  }

  WorkerOptions options(std::uint32_t slots = 1, bool bind = false) {
    WorkerOptions out;
    out.address = "ipc://" + (scratch / "socket");
    out.name = "w";
    out.slots = slots;
    out.bind = bind;
    out.control = timing;
    return out;
  }
  /// `prepare` gives it its methods.
  void start(WorkerOptions wanted, const std::function<void(RpcWorker&)>& prepare) {
    auto opened = RpcWorker::open(context, std::move(wanted));
    ASSERT_TRUE(opened) << opened.error().context;
    worker = std::move(*opened);
    prepare(*worker);
    loop = std::jthread([this](std::stop_token told) {
      while (!told.stop_requested()) {
        const MonoTime now = mono_now();
        if (worker->turn(now) == 0) worker->wait(now, -1);
      }
    });
  }
  void stop() {
    loop = {};
    worker.reset();
  }
  void host_calls() {
    wire::Peer self;
    self.role = wire::Role::kWorker;
    self.instance = random_id<InstanceId>();
    auto opened = WorkerHost::open(context, *parse_endpoint("ipc://" + (scratch / "socket")), self, timing);
    ASSERT_TRUE(opened) << opened.error().context;
    host = std::move(*opened);
  }
  CallResult<std::string> call(std::string_view method, std::string_view arguments = {}) {
    return host->call("", method, arguments, {kDeadline, false},
                      [this](std::string_view part) { parts.emplace_back(part); });
  }
  /// Turns the host until it is so.
  bool eventually(const std::function<bool()>& so) {
    for (const MonoTime until = mono_now() + kDeadline; mono_now() < until;) {
      const MonoTime now = mono_now();
      const std::size_t work = host->turn(now);
      if (so()) return true;
      if (work == 0) host->wait(now, now + 20ms);
    }
    return false;
  }

  test::ScratchDirectory scratch;
  ControlOptions timing{.timing = {.interval = 100ms, .missed = 20}};
  Context context;
  std::unique_ptr<WorkerHost> host;
  std::unique_ptr<RpcWorker> worker;
  std::jthread loop;
  std::vector<std::string> parts;
};

TEST_F(RpcWorkerTest, X4_AMethodAnswersWithPartsBeforeTheLast) {
  host_calls();
  start(options(), [](RpcWorker& w) {
    w.serve("count", [](Invocation& invocation) {
      const int n = std::stoi(invocation.arguments());
      for (int i = 1; i < n; ++i) EXPECT_TRUE(invocation.partial(std::to_string(i)));
      return std::to_string(n);
    });
  });
  EXPECT_EQ(call("count", "3").value_or("failed"), "3");
  EXPECT_THAT(parts, ElementsAre("1", "2"));
  parts.clear();
  EXPECT_EQ(call("count", "20000").value_or("failed"), "20000") << "more than the queues hold";
  ASSERT_EQ(parts.size(), 19999U);
  for (std::size_t i = 0; i < parts.size(); ++i) ASSERT_EQ(parts[i], std::to_string(i + 1));
}

TEST_F(RpcWorkerTest, X7_WhatAMethodThrowsReachesTheCaller) {
  host_calls();
  start(options(), [](RpcWorker& w) {
    w.serve("nested", [](Invocation&) -> std::string {
      try {
        throw std::out_of_range("7 is too much");
      } catch (...) {
        std::throw_with_nested(std::runtime_error("cannot do it"));
      }
    });
    w.serve("own", [](Invocation&) -> std::string { throw Failed("no_such_user", "nobody is called joe"); });
    w.serve("odd", [](Invocation&) -> std::string { throw 7; });
    w.serve(
        "quick", [](Invocation&) -> std::string { throw Failed("quick", "in the loop"); }, RpcWorker::Where::kLoop);
  });
  const auto nested = call("nested");
  ASSERT_FALSE(nested);
  EXPECT_EQ(nested.error().kind, CallError::Kind::kRemote);
  EXPECT_THAT(nested.error().type, HasSubstr("runtime_error"));
  EXPECT_EQ(nested.error().message, "cannot do it");
  EXPECT_THAT(nested.error().trace, HasSubstr("std::out_of_range: 7 is too much"));
  const auto own = call("own");
  EXPECT_EQ(own.error().type + ": " + own.error().message, "no_such_user: nobody is called joe");
  EXPECT_EQ(call("odd").error().type, "unknown");
  EXPECT_EQ(call("quick").error().type, "quick");
  EXPECT_EQ(call("missing").error().message, "method missing not found");
}

TEST_F(RpcWorkerTest, X8_EventsArriveAllAndInOrderWhileCallsAndHeartbeatsGoOn) {
  host_calls();
  std::uint64_t seen = 0;
  bool in_order = true;
  host->pool().on_event([&](PeerId, const wire::Event& event, std::string_view content) {
    ++seen;
    in_order = in_order && event.channel == "news" && event.sequence == seen && content == std::to_string(seen);
  });
  start(options(), [](RpcWorker& w) { w.serve("echo", [](Invocation& i) { return i.arguments(); }); });
  ASSERT_TRUE(host->wait_for_worker("", kDeadline));
  std::jthread teller([this] {
    for (int i = 1; i <= 100'000; ++i) {
      if (!worker->emit("news", std::to_string(i))) return;
    }
  });
  for (int i = 0; i < 20; ++i) EXPECT_EQ(call("echo", "x").value_or("failed"), "x");
  EXPECT_TRUE(eventually([&] { return seen == 100'000; })) << seen;
  EXPECT_TRUE(in_order);
  EXPECT_EQ(host->pool().workers(), 1U);
}

TEST_F(RpcWorkerTest, X9_ASlowCallHoldsUpNeitherAnotherNorTheLoop) {
  host_calls();
  std::atomic<bool> open = false;
  start(options(2), [&](RpcWorker& w) {
    w.serve("slow", [&](Invocation& invocation) {
      while (!open && !invocation.cancelled()) std::this_thread::yield();
      return std::string("slow");
    });
    w.serve("quick", [](Invocation&) { return std::string("quick"); });
    w.serve(
        "at once", [](Invocation&) { return std::string("at once"); }, RpcWorker::Where::kLoop);
  });
  std::string slow;
  host->pool().start("", {"slow", "", {kDeadline, false}, {}, [&](auto result) { slow = result.value_or("failed"); }},
                     mono_now());
  EXPECT_EQ(call("quick").value_or("failed"), "quick");
  EXPECT_EQ(call("at once").value_or("failed"), "at once");
  EXPECT_EQ(slow, "");
  open = true;
  EXPECT_TRUE(eventually([&] { return slow == "slow"; }));
}

TEST_F(RpcWorkerTest, AMethodIsToldWhenNobodyWaitsAnyMore) {
  host_calls();
  std::atomic<bool> told = false;
  start(options(), [&](RpcWorker& w) {
    w.serve("endless", [&](Invocation& invocation) {
      while (invocation.partial("x")) {
      }
      told = true;
      return std::string();
    });
    w.serve("next", [](Invocation&) { return std::string("next"); });
  });
  const auto late = host->call("", "endless", "", {300ms, false});
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().kind, CallError::Kind::kTimeout);
  EXPECT_EQ(call("next").value_or("failed"), "next") << "its slot is free again";
  EXPECT_TRUE(told);
}

TEST_F(RpcWorkerTest, X1_AWorkerThatListensIsCalledByManyClients) {
  start(options(4, true), [](RpcWorker& w) { w.serve("echo", [](Invocation& i) { return i.arguments(); }); });
  std::vector<std::jthread> clients;
  std::atomic<int> right = 0;
  for (int c = 0; c < 8; ++c) {
    clients.emplace_back([&, c] {
      wire::Peer self;
      self.role = wire::Role::kClient;
      self.instance = random_id<InstanceId>();
      auto client = RpcClient::connect(context, "ipc://" + (scratch / "socket"), self, timing);
      for (int i = 0; i < 50; ++i) {
        const std::string text = std::to_string(c) + "/" + std::to_string(i);
        right += (*client)->call("echo", text, {kDeadline, false}).value_or("failed") == text;
      }
    });
  }
  clients.clear();
  EXPECT_EQ(right, 400);
}

TEST_F(RpcWorkerTest, X5_WhoeverWaitsForAWorkerIsToldWhenNoneComes) {
  host_calls();
  EXPECT_FALSE(host->wait_for_worker("", 50ms));
  start(options(), [](RpcWorker&) {});
  EXPECT_TRUE(host->wait_for_worker("", kDeadline));
  EXPECT_FALSE(host->wait_for_worker("another type", 50ms));
}

TEST_F(RpcWorkerTest, X10_StartedAndEndedAHundredTimes) {
  host_calls();
  for (int i = 0; i < 100; ++i) {
    start(options(2), [](RpcWorker& w) { w.serve("echo", [](Invocation& v) { return v.arguments(); }); });
    if (i % 2 == 0) {
      EXPECT_EQ(call("echo", "x").value_or("failed"), "x");
    }
    stop();
    stop();
    EXPECT_TRUE(eventually([&] { return host->pool().workers() == 0; }));
  }
}

TEST_F(RpcWorkerTest, X11_HooksTellWhatHappens) {
  host_calls();
  std::vector<std::string> heard;
  std::mutex mutex;
  const auto note = [&](std::string text) {
    const std::lock_guard lock(mutex);
    heard.push_back(std::move(text));
  };
  std::vector<std::string> host_heard;
  host->hooks({[&](const WorkerInfo& info) { host_heard.push_back("ready " + info.name); },
               [&](std::string_view name, std::string_view) { host_heard.push_back("lost " + std::string(name)); }});
  start(options(), [&](RpcWorker& w) {
    w.serve("echo", [](Invocation& v) { return v.arguments(); });
    w.hooks({[&](const Invocation& v) { note("request " + v.method()); }, [&](std::string_view) { note("connected"); },
             [&](std::string_view, std::string_view) { note("disconnected"); }});
  });
  EXPECT_EQ(call("echo", "x").value_or("failed"), "x");
  stop();
  EXPECT_TRUE(eventually([&] { return host_heard.size() == 2; }));
  EXPECT_THAT(host_heard, ElementsAre("ready w", "lost w"));
  EXPECT_THAT(heard, ElementsAre("connected", "request echo"));
}

}  // namespace
}  // namespace fantail::rpc
