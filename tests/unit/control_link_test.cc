#include "common/transport/control_link.h"

#include <gmock/gmock.h>

#include <functional>
#include <future>
#include <memory>
#include <optional>

#include "common/base/digest.h"
#include "common/base/log.h"
#include "common/transport/waiter.h"
#include "common/wire/codec.h"
#include "tests/support/scratch_directory.h"

namespace fantail {
namespace {

constexpr Duration kDeadline = 60s;

class Ear final : public ControlEvents {
 public:
  void on_peer_up(PeerId id, const wire::Peer&) override { peer = id; }
  void on_peer_down(PeerId, std::string_view) override { peer.reset(); }
  void on_control(PeerId, wire::Kind kind, std::span<const std::byte>, Frame) override { heard = kind; }
  std::optional<PeerId> peer;
  std::optional<wire::Kind> heard;
};

/// A server and a client that only makes requests, over a socket in a directory of their own.
class ControlLinkTest : public testing::Test {
 protected:
  ControlLinkTest() {
    log::set_up(log::Level::kOff);
    const std::string endpoint = "ipc://" + scratch / "socket";
    server = open(wire::Role::kProducer);
    EXPECT_TRUE(server->bind(*parse_endpoint(endpoint)));
    client = open(wire::Role::kClient);
    EXPECT_TRUE(client->connect(endpoint));
    EXPECT_TRUE(eventually([&] {
      client->turn(mono_now(), client_events);
      server->turn(mono_now(), server_events);
      return client_events.peer && server_events.peer;
    }));
  }
  ~ControlLinkTest() override { log::set_up(log::Level::kInfo); }

  std::unique_ptr<ControlLink> open(wire::Role role) {
    wire::Peer self;
    self.role = role;
    self.instance = random_id<InstanceId>();
    return std::move(*ControlLink::open(context, self));
  }
  static bool eventually(const std::function<bool()>& step) {
    for (const MonoTime until = mono_now() + kDeadline; mono_now() < until;) {
      if (step()) return true;
      Waiter().wait(1ms);
    }
    return false;
  }

  test::ScratchDirectory scratch;
  Context context;
  Ear server_events;
  Ear client_events;
  std::unique_ptr<ControlLink> server;
  std::unique_ptr<ControlLink> client;
  wire::Encoder encoder;
};

TEST_F(ControlLinkTest, AClientThatDoesNotListenIsWaitedForOnlyOnRequest) {
  EXPECT_TRUE(server->flush(kDeadline, server_events));
  EXPECT_FALSE(server->flush(10ms, server_events, ControlLink::Whom::kClientsToo));
}

/// libzmq throws away what has arrived and was not taken out of it when the other side closes.
TEST_F(ControlLinkTest, WhatWasSentToAClientIsWithItWhenTheFlushEnds) {
  ASSERT_TRUE(server->send(*server_events.peer, encoder.cancel({7}), Frame()));
  auto flushed = std::async(std::launch::async,
                            [&] { return server->flush(kDeadline, server_events, ControlLink::Whom::kClientsToo); });
  EXPECT_TRUE(eventually([&] {
    client->turn(mono_now(), client_events);
    return flushed.wait_for(0ms) == std::future_status::ready;
  }));
  EXPECT_TRUE(flushed.get());
  EXPECT_EQ(client_events.heard, wire::Kind::kCancel);
}

}  // namespace
}  // namespace fantail
