#include "common/rpc/rpc_server.h"

#include <gmock/gmock.h>

#include "common/base/digest.h"

namespace fantail::rpc {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr PeerId kPeer{1};
constexpr PeerId kOther{2};

/// What a peer got, in words.
class RecordingPort final : public ControlPort {
 public:
  using ControlPort::send;
  bool send(PeerId peer, std::span<const std::byte> header, Frame payload) override {
    if (full) return false;
    const auto envelope = wire::open_envelope({}, header, payload.bytes());
    if (!envelope) return sent.push_back("refused: " + envelope.error().context), true;
    std::string text = std::to_string(peer.raw) + " ";
    if (envelope->kind == wire::Kind::kReply) {
      const auto m = wire::decode_reply(envelope->body, payload.bytes()).value();
      text += std::to_string(m.request) + "." + std::to_string(m.sequence) + (m.partial ? "+ " : " ");
      text += payload.text();
    } else if (envelope->kind == wire::Kind::kFailure) {
      const auto m = wire::decode_failure(envelope->body).value();
      text += std::to_string(m.request) + " failed: " + m.type;
    } else if (envelope->kind == wire::Kind::kEvent) {
      const auto m = wire::decode_event(envelope->body, payload.bytes()).value();
      text += m.channel + "." + std::to_string(m.sequence) + " " + std::string(payload.text());
    }
    sent.push_back(text);
    return true;
  }
  bool full = false;
  std::vector<std::string> sent;
};

class RpcServerTest : public testing::Test {
 protected:
  void request(PeerId peer, std::uint64_t number, const std::string& method = "work") {
    wire::Encoder encoder;
    const auto header = encoder.request({number, method, 0}, as_bytes(std::string_view("args")));
    const Frame payload = Frame::copy_of(std::string_view("args"));
    const auto envelope = wire::open_envelope({}, header, payload.bytes());
    ASSERT_TRUE(server.on_control(peer, envelope->kind, envelope->body, payload));
  }
  void cancel(PeerId peer, std::uint64_t number) {
    wire::Encoder encoder;
    const auto header = encoder.cancel({number});
    const auto envelope = wire::open_envelope({}, header, {});
    ASSERT_TRUE(server.on_control(peer, envelope->kind, envelope->body, Frame()));
  }

  RecordingPort port;
  std::vector<Caller> callers;
  std::vector<std::string> asked;
  std::vector<Caller> gone;
  RpcServer server{port,
                   [this](const Caller& caller, const wire::Request& request, std::string_view arguments) {
                     callers.push_back(caller);
                     asked.push_back(request.method + "(" + std::string(arguments) + ")");
                   },
                   100};
};

TEST_F(RpcServerTest, EachCallerGetsItsOwnAnswerInAnyOrder) {
  request(kPeer, 7);
  request(kOther, 7);
  EXPECT_THAT(asked, ElementsAre("work(args)", "work(args)"));
  server.reply(callers[1], "b");
  server.reply(callers[0], "a");
  EXPECT_THAT(port.sent, ElementsAre("2 7.0 b", "1 7.0 a"));
}

TEST_F(RpcServerTest, PartialAnswersAreNumbered) {
  request(kPeer, 7);
  EXPECT_TRUE(server.partial(callers[0], Frame::copy_of(std::string_view("x"))));
  EXPECT_TRUE(server.partial(callers[0], Frame::copy_of(std::string_view("y"))));
  server.reply(callers[0], "z");
  EXPECT_THAT(port.sent, ElementsAre("1 7.0+ x", "1 7.1+ y", "1 7.2 z"));
}

TEST_F(RpcServerTest, AFailureThatIsTooLongIsCutAndArrives) {
  request(kPeer, 7);
  const std::string text(1'000'000, 'x');
  server.fail(callers[0], text, text, text);
  ASSERT_EQ(port.sent.size(), 1U);
  EXPECT_EQ(port.sent[0], "1 7 failed: " + text.substr(0, wire::kMaxNameBytes));
}

TEST_F(RpcServerTest, OnlyOneFinalAnswerIsSent) {
  request(kPeer, 7);
  server.fail(callers[0], "broken", "it broke");
  server.reply(callers[0], "after all");
  EXPECT_TRUE(server.partial(callers[0], Frame::copy_of(std::string_view("more"))));
  EXPECT_THAT(port.sent, ElementsAre("1 7 failed: broken"));
}

TEST_F(RpcServerTest, ARepeatedRequestIsAnsweredOnce) {
  request(kPeer, 7);
  request(kPeer, 7);
  EXPECT_EQ(callers.size(), 1u);
}

TEST_F(RpcServerTest, AnswersWaitForAFullQueueInOrder) {
  request(kPeer, 1);
  request(kPeer, 2);
  port.full = true;
  server.reply(callers[0], "first");
  port.full = false;
  server.reply(callers[1], "second");
  EXPECT_THAT(port.sent, IsEmpty());
  EXPECT_EQ(server.turn(), 2u);
  EXPECT_THAT(port.sent, ElementsAre("1 1.0 first", "1 2.0 second"));
  EXPECT_TRUE(server.idle());
}

TEST_F(RpcServerTest, PartialAnswersDoNotOvertakeOrPileUp) {
  request(kPeer, 1);
  port.full = true;
  EXPECT_FALSE(server.partial(callers[0], Frame::copy_of(std::string_view("later"))));
  port.full = false;
  EXPECT_TRUE(server.partial(callers[0], Frame::copy_of(std::string_view("later"))));
  EXPECT_THAT(port.sent, ElementsAre("1 1.0+ later"));
}

TEST_F(RpcServerTest, WhatWaitsForOnePeerIsBounded) {
  port.full = true;
  for (std::uint64_t n = 1; n <= 5; ++n) request(kPeer, n);
  for (const Caller& caller : callers) server.reply(caller, std::string(30, 'x'));
  EXPECT_EQ(server.counters().dropped_answers, 2u);
  port.full = false;
  EXPECT_EQ(server.turn(), 3u);
}

TEST_F(RpcServerTest, WhoCancelsOrGoesIsToldAndGetsNothing) {
  server.on_gone([this](const Caller& caller) { gone.push_back(caller); });
  request(kPeer, 1);
  request(kPeer, 2);
  request(kOther, 3);
  cancel(kPeer, 1);
  cancel(kPeer, 9);
  server.on_peer_down(kOther);
  EXPECT_THAT(gone, ElementsAre(Caller{kPeer, 1}, Caller{kOther, 3}));
  for (const Caller& caller : callers) server.reply(caller, "done");
  EXPECT_THAT(port.sent, ElementsAre("1 2.0 done"));
}

TEST_F(RpcServerTest, EventsOfAChannelAreNumberedWithoutHoles) {
  EXPECT_TRUE(server.emit(kPeer, "log", "a"));
  port.full = true;
  EXPECT_FALSE(server.emit(kPeer, "log", "lost"));
  port.full = false;
  EXPECT_TRUE(server.emit(kPeer, "log", "b"));
  EXPECT_TRUE(server.emit(kPeer, "other", "c"));
  EXPECT_THAT(port.sent, ElementsAre("1 log.1 a", "1 log.2 b", "1 other.1 c"));
}

TEST_F(RpcServerTest, OneCallerCannotOpenRequestsWithoutEnd) {
  for (std::uint64_t n = 1; n <= 4097; ++n) request(kPeer, n);
  EXPECT_THAT(port.sent, ElementsAre("1 4097 failed: too_many_requests"));
  EXPECT_EQ(callers.size(), 4096u);
}

TEST_F(RpcServerTest, GarbageIsCountedAndChangesNothing) {
  const std::vector<std::byte> garbage(40, std::byte{0xff});
  EXPECT_TRUE(server.on_control(kPeer, wire::Kind::kRequest, garbage, Frame()));
  EXPECT_TRUE(server.on_control(kPeer, wire::Kind::kCancel, garbage, Frame()));
  EXPECT_FALSE(server.on_control(kPeer, wire::Kind::kFetch, garbage, Frame())) << "not ours";
  EXPECT_EQ(server.counters().rejected, 2u);
  EXPECT_THAT(callers, IsEmpty());
}

TEST_F(RpcServerTest, PartsThatCannotWaitAreKeptInOrderAndWithinTheLimit) {
  request(kPeer, 7);
  request(kPeer, 8);
  port.full = true;
  EXPECT_TRUE(server.pass_on(callers[0], "one"));
  EXPECT_TRUE(server.pass_on(callers[0], "two"));
  server.reply(callers[0], "end");
  EXPECT_TRUE(server.pass_on(callers[1], std::string(80, 'x')));
  EXPECT_FALSE(server.pass_on(callers[1], std::string(80, 'x'))) << "more than 100 bytes wait";
  port.full = false;
  server.turn();
  EXPECT_THAT(port.sent, ElementsAre("1 7.0+ one", "1 7.1+ two", "1 7.2 end", "1 8.0+ " + std::string(80, 'x'),
                                     "1 8 failed: too_slow"));
  port.sent.clear();
  EXPECT_TRUE(server.pass_on(callers[1], "late")) << "nobody is there for it";
  EXPECT_THAT(port.sent, IsEmpty());
}

}  // namespace
}  // namespace fantail::rpc
