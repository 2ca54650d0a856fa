#include "pipeline/map.h"

#include <gmock/gmock.h>

#include <atomic>
#include <cmath>
#include <future>

#include "common/base/log.h"
#include "common/json/json.h"
#include "common/rpc/rpc_client.h"
#include "pipeline/greeting.h"

namespace fantail::pipeline {
namespace {

using testing::HasSubstr;

/// Workers on threads, as others would be processes.
class Workers {
 public:
  Workers(std::string address, std::function<std::string(std::string_view)> function)
      : address_(std::move(address)), function_(std::move(function)) {}
  /// So many from now on.
  void resize(std::size_t count) {
    while (threads_.size() > count) threads_.pop_back();  // asks it to stop and waits for it
    while (threads_.size() < count) {
      threads_.emplace_back([this, name = "w" + std::to_string(++started_)](const std::stop_token& stop) {
        auto worker = JobWorker::open({.distributor = address_, .name = name, .threads = 2}, Map::worker(function_));
        ASSERT_TRUE(worker);
        while (!(*worker)->ended()) {
          const MonoTime now = mono_now();
          if (stop.stop_requested()) (*worker)->drain();
          if ((*worker)->turn(now) > 0) continue;
          Waiter waiter;
          (*worker)->add_to(waiter);
          waiter.wait(std::min<MonoTime>((*worker)->due(now), now + 20ms) - now);
        }
      });
    }
  }

 private:
  std::string address_;
  std::function<std::string(std::string_view)> function_;
  std::size_t started_ = 0;
  std::vector<std::jthread> threads_;
};

class MapTest : public testing::Test {
 protected:
  MapTest() { log::set_up(log::Level::kError); }
  ~MapTest() override { log::set_up(log::Level::kInfo); }
  static std::vector<std::string> numbers(std::size_t count) {
    std::vector<std::string> out;
    for (std::size_t i = 0; i < count; ++i) out.push_back(std::to_string(i));
    return out;
  }
  static std::string square(std::string_view item) {
    const auto n = std::stoull(std::string(item));
    return std::to_string(n * n);
  }
};

TEST_F(MapTest, Z26_AHundredThousandAreAsIfTheyWereDoneInARow) {
  const auto items = numbers(100'000);
  auto map = Map::start({.chunk = 100}, items);
  ASSERT_TRUE(map) << map.error().context;
  Workers workers((*map)->address(), square);
  workers.resize(2);
  const auto results = (*map)->results(60s);
  ASSERT_TRUE(results) << results.error().context;
  for (std::size_t i = 0; i < items.size(); ++i) ASSERT_EQ((*results)[i], square(items[i]));
  const auto again = (*map)->results(60s);
  ASSERT_TRUE(again) << "looked at twice";
  EXPECT_EQ(*again, *results);
}

TEST_F(MapTest, Z26_NoneIsLostWhileWorkersComeAndGo) {
  const auto items = numbers(600);
  std::atomic<int> calls = 0;
  auto map = Map::start({}, items);
  ASSERT_TRUE(map);
  Workers workers((*map)->address(), [&](std::string_view item) {
    ++calls;
    std::this_thread::sleep_for(1ms);  // what the function does
    return square(item);
  });
  for (const auto& [count, upto] : {std::pair{2, 100}, {8, 300}, {1, 450}, {3, 600}}) {
    workers.resize(static_cast<std::size_t>(count));
    ASSERT_TRUE((*map)->result(static_cast<std::size_t>(upto) - 1, 60s));
  }
  const auto results = (*map)->results(60s);
  ASSERT_TRUE(results);
  for (std::size_t i = 0; i < items.size(); ++i) ASSERT_EQ((*results)[i], square(items[i]));
}

TEST_F(MapTest, Z26_ResultsAreThereBeforeTheLastAndForOthersById) {
  auto map = Map::start({.chunk = 2}, {"1", "2", "3", "4", "5"});
  ASSERT_TRUE(map);
  EXPECT_EQ((*map)->result(0, 0ms).error().code, ErrorCode::kWouldBlock) << "nobody works yet";
  Workers workers((*map)->address(), square);
  workers.resize(1);
  EXPECT_EQ((*map)->result(4, 60s).value(), "25");
  EXPECT_EQ((*map)->result(5, 0ms).error().code, ErrorCode::kInvalid);
  ASSERT_TRUE((*map)->results(60s));
  Context context;
  auto client = rpc::RpcClient::connect(context, (*map)->collector_address(), self_as(wire::Role::kClient, "other"));
  ASSERT_TRUE(client);
  const auto line = (*client)->call(kResult, R"({"id":"map:2"})");
  ASSERT_TRUE(line) << line.error().message;
  EXPECT_EQ(parse_json(*line)->at("result"), Json::array({9, 16}));
}

/// Its wake-ups are counted, of which a busy machine makes fewer.
TEST_F(MapTest, AWorkerThatHasNothingToDoRests) {
  auto map = Map::start({}, {"1"});
  ASSERT_TRUE(map);
  std::promise<void> gate;
  const std::shared_future<void> opened = gate.get_future().share();
  std::atomic<bool> begun = false;
  Workers workers((*map)->address(), [&](std::string_view item) {
    begun = true;
    opened.wait();
    return square(item);
  });
  workers.resize(1);
  while (!begun) std::this_thread::yield();
  bool joined = false;
  JobWorker::Hooks hooks;
  hooks.init_worker = [&](std::string_view) { joined = true; };
  auto idle = JobWorker::open({.distributor = (*map)->address(), .name = "idle"}, Map::worker(square), hooks);
  ASSERT_TRUE(idle);
  const auto turn = [&] {
    if ((*idle)->turn(mono_now()) > 0) return;
    Waiter waiter;
    (*idle)->add_to(waiter);
    const MonoTime now = mono_now();
    waiter.wait((*idle)->due(now) - now);
  };
  while (!joined) turn();
  int turns = 0;
  for (const MonoTime until = mono_now() + 1s; mono_now() < until; ++turns) turn();
  EXPECT_LT(turns, 100);
  gate.set_value();
  EXPECT_TRUE((*map)->results(60s));
}

TEST_F(MapTest, WhatTheFunctionThrowsIsTheReason) {
  auto map = Map::start({}, {"1", "\"x\"", "3"});
  ASSERT_TRUE(map);
  Workers workers((*map)->address(), square);
  workers.resize(1);
  EXPECT_EQ((*map)->result(2, 60s).value(), "9");
  const auto bad = (*map)->result(1, 60s);
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().context, HasSubstr("stoull"));
}

TEST_F(MapTest, ItemsThatAreNoJsonAreRefused) {
  EXPECT_THAT(Map::start({}, {"1", "}"}).error().context, HasSubstr("item 1"));
}

}  // namespace
}  // namespace fantail::pipeline
