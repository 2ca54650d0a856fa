#include <gmock/gmock.h>

#include <optional>

#include "common/base/log.h"
#include "common/transport/broadcast.h"
#include "common/transport/control_link.h"
#include "common/transport/waiter.h"
#include "tests/support/scratch_directory.h"

namespace fantail {
namespace {

constexpr Duration kDeadline = 60s;

/// Links between a side that has a key and one that has it at times, over sockets in a directory of their own.
class KeyedLinksTest : public testing::Test {
 protected:
  KeyedLinksTest() : ours(context(true)) { log::set_up(log::Level::kOff); }
  ~KeyedLinksTest() override { log::set_up(log::Level::kInfo); }

  std::unique_ptr<Context> context(bool with_key) {
    const auto file = scratch.path() / "key";
    if (!std::filesystem::exists(file)) {
      EXPECT_TRUE(CurveKey::make(file));
    }
    auto out = std::make_unique<Context>();
    if (with_key) out->protect(*CurveKey::load(file));
    return out;
  }
  Endpoint endpoint() { return *parse_endpoint("ipc://" + scratch / "socket"); }
  /// Repeats until it is true.
  static bool eventually(const std::function<bool()>& step) {
    for (const MonoTime until = mono_now() + kDeadline; mono_now() < until;) {
      if (step()) return true;
      Waiter().wait(10ms);
    }
    return false;
  }

  test::ScratchDirectory scratch;
  std::unique_ptr<Context> ours;
  std::unique_ptr<Context> theirs;
};

TEST_F(KeyedLinksTest, ASubscriberHearsAPublisherThatHadNoKeyForAWhile) {
  auto subscriber = *Subscriber::open(*ours, 10, {"topic"});
  ASSERT_TRUE(subscriber->connect(endpoint()));
  for (const bool with_key : {false, true}) {
    theirs = context(with_key);
    auto publisher = *Publisher::open(*theirs, 10);
    ASSERT_TRUE(publisher->bind(endpoint()));
    EXPECT_TRUE(eventually([&] {
      subscriber->tend(mono_now());
      const bool subscribed = publisher->receive_subscriptions();
      return with_key ? subscribed : publisher->refused_keys() > 0;
    })) << "with its key: "
        << with_key;
  }
}

TEST_F(KeyedLinksTest, APublisherThatConnectsReachesASubscriberThatHadNoKeyForAWhile) {
  auto publisher = *Publisher::open(*ours, 10);
  ASSERT_TRUE(publisher->connect(endpoint()));
  for (const bool with_key : {false, true}) {
    theirs = context(with_key);
    auto subscriber = *Subscriber::open(*theirs, 10, {"topic"});
    ASSERT_TRUE(subscriber->bind(endpoint()));
    BroadcastMessage message;
    EXPECT_TRUE(eventually([&] {
      subscriber->receive(message);  // lets libzmq work
      const bool subscribed = publisher->receive_subscriptions();
      return with_key ? subscribed : publisher->refused_keys() > 0;
    })) << "with its key: "
        << with_key;
  }
}

TEST_F(KeyedLinksTest, AControlLinkComesUpWithAPeerThatHadNoKeyForAWhile) {
  class Silent final : public ControlEvents {
   public:
    void on_peer_up(PeerId, const wire::Peer&) override { up = true; }
    void on_peer_down(PeerId, std::string_view) override {}
    void on_control(PeerId, wire::Kind, std::span<const std::byte>, Frame) override {}
    bool up = false;
  };
  Silent client_events;
  Silent server_events;
  wire::Peer self;
  self.role = wire::Role::kClient;
  self.instance = random_id<InstanceId>();
  auto client = *ControlLink::open(*ours, self);
  ASSERT_TRUE(client->connect(endpoint().to_string()));
  for (const bool with_key : {false, true}) {
    theirs = context(with_key);
    auto server = *ControlLink::open(*theirs, self);
    ASSERT_TRUE(server->bind(endpoint()));
    EXPECT_TRUE(eventually([&] {
      client->turn(mono_now(), client_events);
      server->turn(mono_now(), server_events);
      return with_key ? client_events.up : server->counters().refused_keys > 0;
    })) << "with its key: "
        << with_key;
  }
}

}  // namespace
}  // namespace fantail
