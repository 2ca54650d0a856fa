// The C++ library of fantail-state against a real server, which runs in a process of its own.
#include <gmock/gmock.h>

#include "common/json/json.h"
#include "state/private_server.h"
#include "state/watcher.h"

namespace fantail::state {
namespace {

using testing::ElementsAre;

class StateLibraryTest : public testing::Test {
 protected:
  void SetUp() override {
    auto started = PrivateServer::start(group);
    ASSERT_TRUE(started) << started.error().context;
    server.emplace(std::move(*started));
    client = connect();
  }
  std::unique_ptr<StateClient> connect() {
    auto made = StateClient::open({.server = server->address()});
    return made ? std::move(*made) : nullptr;
  }
  /// Of the changes of "n", from the beginning.
  std::unique_ptr<StateWatcher> watch(bool live = false, InstanceId without = {}) {
    WatcherConfig config;
    config.server = server->address();
    config.spec.keys = {"n"};
    config.spec.without = without;
    config.live = live;
    config.from = 0;
    auto made = StateWatcher::open(std::move(config));
    EXPECT_TRUE(made) << made.error().message;
    return made ? std::move(*made) : nullptr;
  }
  /// What the next events leave in their keys.
  static std::vector<Json> next(StateWatcher& watcher, int count) {
    std::vector<Json> out;
    for (int i = 0; i < count; ++i) {
      const auto event = watcher.next(mono_now() + 30s);
      if (!event || !*event || !(*event)->change) break;
      out.push_back(Json::parse((*event)->change->edits.at(0).after.value_or("null")));
    }
    return out;
  }

  ProcessGroup group;
  std::optional<PrivateServer> server;
  std::unique_ptr<StateClient> client;
};

TEST_F(StateLibraryTest, Z14_AnyComputationIsOneStep) {
  ASSERT_TRUE(client->update({{"a", 1}, {"b", 2}, {"c", 3}}));
  const auto sum = client->atomic([](Json& items) -> Json {
    items["a"] = items["a"].get<int>() + items["b"].get<int>();
    items.erase("b");
    items["d"] = 4;
    return items["a"];
  });
  ASSERT_TRUE(sum) << sum.error().message;
  EXPECT_EQ(*sum, 3);
  EXPECT_EQ(*client->items(), Json({{"a", 3}, {"c", 3}, {"d", 4}}));
}

TEST_F(StateLibraryTest, Z14_AnExceptionLeavesTheStateUntouchedAndReachesTheCaller) {
  ASSERT_TRUE(client->set("a", 1));
  EXPECT_THROW((void)client->atomic([](Json& items) -> Json {
    items["a"] = 2;
    throw std::domain_error("no");
  }),
               std::domain_error);
  EXPECT_EQ(*client->items(), Json({{"a", 1}}));
}

TEST_F(StateLibraryTest, Z14_WhoIsDisturbedBeginsAgainAndGivesUpInTheEnd) {
  const auto other = connect();
  ASSERT_TRUE(client->set("n", 0));
  int tries = 0;
  const auto disturbed_twice = [&](Json& items) -> Json {
    if (++tries <= 2) {
      EXPECT_TRUE(other->increment("n", 10));
    }
    items["n"] = items["n"].get<int>() + 1;
    return items["n"];
  };
  EXPECT_EQ(*client->atomic(disturbed_twice), 21);
  EXPECT_EQ(tries, 3);

  tries = -1000;  // disturbed each time
  const auto result = client->atomic(disturbed_twice, 5);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().type, "conflict");
  EXPECT_EQ(*client->get("n"), 21 + 50) << "nothing of it was done";
  // Other namespaces do not disturb.
  ASSERT_TRUE(other->use_namespace("other"));
  tries = -1000;
  EXPECT_TRUE(client->atomic(
      [&](Json& items) -> Json {
        EXPECT_TRUE(other->increment("n", 1));
        return items["n"] = 0;
      },
      1));
}

TEST_F(StateLibraryTest, Z11_GoingLiveSkipsWhatThereIs) {
  const auto watcher = watch();
  for (int i = 1; i <= 5; ++i) ASSERT_TRUE(client->set("n", i));
  EXPECT_THAT(next(*watcher, 2), ElementsAre(1, 2));
  ASSERT_TRUE(watcher->go_live());
  ASSERT_TRUE(client->set("n", 6));
  ASSERT_TRUE(client->set("n", 7));
  EXPECT_THAT(next(*watcher, 2), ElementsAre(6, 7));
}

TEST_F(StateLibraryTest, Z11_LiveIsTheNewest) {
  const auto watcher = watch(true);
  for (int i = 1; i <= 5; ++i) ASSERT_TRUE(client->set("n", i));
  std::vector<Json> seen;
  while (seen.empty() || seen.back() != 5) {
    const auto event = next(*watcher, 1);
    ASSERT_FALSE(event.empty());
    ASSERT_TRUE(seen.empty() || seen.back() < event[0]);
    seen.push_back(event[0]);
  }
}

TEST_F(StateLibraryTest, Z12_OwnChangesAreNotHeardAndThoseOfOthersAre) {
  const auto other = connect();
  const auto watcher = watch(false, client->instance());
  for (int i = 1; i <= 4; ++i) ASSERT_TRUE((i % 2 == 0 ? client : other)->set("n", i));
  EXPECT_THAT(next(*watcher, 2), ElementsAre(1, 3));
}

TEST_F(StateLibraryTest, Z16_PingAnswersWithItsPayloadAndTheServersProcess) {
  const auto answer = client->call("ping", {{"payload", "0123456789"}});
  ASSERT_TRUE(answer);
  EXPECT_EQ((*answer)["payload"], "0123456789");
  EXPECT_EQ((*answer)["pid"], group.pid(server->index()));
}

TEST_F(StateLibraryTest, AServerThatIsStoppedIsNamed) {
  group.stop(server->index());
  auto made = StateClient::open({.server = server->address(), .timeout = 200ms});
  ASSERT_TRUE(made);
  const auto answer = (*made)->get("k");
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().kind, rpc::CallError::Kind::kUnreachable);
  EXPECT_THAT(answer.error().message, testing::HasSubstr(server->address()));
}

}  // namespace
}  // namespace fantail::state
