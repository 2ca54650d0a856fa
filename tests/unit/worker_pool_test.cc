#include "common/rpc/worker_pool.h"

#include <gmock/gmock.h>

#include "common/base/digest.h"
#include "tests/support/seeded.h"

namespace fantail::rpc {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// What the pool sends to each worker.
class WorkersPort final : public ControlPort {
 public:
  using ControlPort::send;
  bool send(PeerId peer, std::span<const std::byte> header, Frame payload) override {
    if (full) return false;
    const auto envelope = wire::open_envelope({}, header, payload.bytes());
    if (envelope->kind == wire::Kind::kRequest) {
      requests.push_back({peer, *wire::decode_request(envelope->body, payload.bytes()), std::string(payload.text())});
    } else if (envelope->kind == wire::Kind::kCancel) {
      cancelled.emplace_back(peer, wire::decode_cancel(envelope->body)->request);
    }
    return true;
  }
  struct Sent {
    PeerId worker;
    wire::Request request;
    std::string arguments;
  };
  bool was_cancelled(PeerId worker, std::uint64_t request) const {
    return std::find(cancelled.begin(), cancelled.end(), std::pair(worker, request)) != cancelled.end();
  }
  bool full = false;
  std::vector<Sent> requests;
  std::vector<std::pair<PeerId, std::uint64_t>> cancelled;
};

class WorkerPoolTest : public testing::Test {
 protected:
  void worker(std::uint64_t peer, std::uint32_t slots = 1, std::vector<std::string> types = {""}) {
    ASSERT_TRUE(pool.ready({peer}, {"w" + std::to_string(peer), std::move(types), slots}));
  }
  std::uint64_t call(const std::string& name, Duration timeout = 5s, bool repeatable = false,
                     const std::string& type = "") {
    return pool.start(type,
                      {name,
                       "args of " + name,
                       {timeout, repeatable},
                       [this, name](std::string_view part) { told.push_back(name + "+" + std::string(part)); },
                       [this, name](CallResult<std::string> result) {
                         told.push_back(name + (result ? "=" + *result : "!" + words(result.error())));
                         if (!result) last_error = result.error();
                       }},
                      now);
  }
  static std::string words(const CallError& error) {
    switch (error.kind) {
      case CallError::Kind::kUnreachable: return error.type;
      case CallError::Kind::kTimeout: return "timeout";
      case CallError::Kind::kLost: return "lost";
      case CallError::Kind::kRemote: return "remote " + error.type;
    }
    return {};
  }
  void receive(PeerId worker, std::span<const std::byte> header, std::string_view payload) {
    const Frame frame = Frame::copy_of(payload);
    const auto envelope = wire::open_envelope({}, header, frame.bytes());
    ASSERT_TRUE(envelope) << envelope.error().context;
    ASSERT_TRUE(pool.on_control(worker, envelope->kind, envelope->body, frame));
  }
  void reply(const WorkersPort::Sent& to, std::string_view result, std::uint32_t sequence = 0, bool partial = false) {
    receive(to.worker, encoder.reply({to.request.request, sequence, partial}, as_bytes(result)), result);
  }
  void failure(const WorkersPort::Sent& to, const std::string& type) {
    receive(to.worker, encoder.failure({to.request.request, type, "why", "where"}), {});
  }
  /// Which worker got which call, in order.
  std::vector<std::string> handed() const {
    std::vector<std::string> out;
    for (const auto& sent : port.requests) out.push_back(std::to_string(sent.worker.raw) + " " + sent.request.method);
    return out;
  }

  MonoTime now{100s};
  WorkersPort port;
  WorkerPool pool{port, 1000};
  wire::Encoder encoder;
  std::vector<std::string> told;
  CallError last_error;
};

TEST_F(WorkerPoolTest, ACallWaitsForAWorkerOfItsType) {
  call("a", 5s, false, "images");
  worker(1);
  pool.turn(now);
  EXPECT_THAT(handed(), IsEmpty());
  worker(2, 1, {"sounds", "images"});
  pool.turn(now);
  ASSERT_THAT(handed(), ElementsAre("2 a"));
  EXPECT_EQ(port.requests[0].arguments, "args of a");
  EXPECT_EQ(port.requests[0].request.type, "images");
  EXPECT_EQ(port.requests[0].request.timeout_ms, 5000U);
  reply(port.requests[0], "1", 0, true);
  reply(port.requests[0], "2", 1);
  EXPECT_THAT(told, ElementsAre("a+1", "a=2"));
  EXPECT_EQ(pool.in_hand() + pool.waiting(), 0U);
}

TEST_F(WorkerPoolTest, WithoutAWorkerItEndsAtItsDeadlineAndSaysWhichIsMissing) {
  call("a", 100ms, false, "images");
  call("b", 200ms);
  EXPECT_EQ(*pool.due(), now + 100ms);
  now += 99ms;
  pool.turn(now);
  EXPECT_THAT(told, IsEmpty());
  now += 1ms;
  pool.turn(now);
  EXPECT_THAT(told, ElementsAre("a!no_worker"));
  EXPECT_THAT(last_error.message, HasSubstr("no worker for 'images'"));
  worker(1);
  now += 100ms;
  pool.turn(now);
  ASSERT_THAT(handed(), ElementsAre("1 b")) << "handed out at its last moment";
  EXPECT_THAT(told, ElementsAre("a!no_worker", "b!timeout"));
}

TEST_F(WorkerPoolTest, TheWorkerWithTheFewestInHandGetsTheNextAndNoneMoreThanItTakes) {
  worker(1, 2);
  worker(2, 3);
  for (const char* name : {"a", "b", "c", "d", "e", "f"}) call(name);
  EXPECT_THAT(handed(), ElementsAre("1 a", "2 b", "1 c", "2 d", "2 e"));
  EXPECT_EQ(pool.waiting(), 1U);
  reply(port.requests[0], "");
  pool.turn(now);
  EXPECT_EQ(handed().back(), "1 f");
}

TEST_F(WorkerPoolTest, AllThatWaitGoToTheOneThatComes) {
  for (const char* name : {"a", "b", "c"}) call(name);
  worker(1, 2);
  pool.turn(now);
  EXPECT_THAT(handed(), ElementsAre("1 a", "1 b"));
}

TEST_F(WorkerPoolTest, EqualWorkersTakeTurns) {
  for (std::uint64_t peer : {1, 2, 3}) worker(peer);
  for (int i = 0; i < 9; ++i) {
    call("x");
    reply(port.requests.back(), "");
  }
  EXPECT_THAT(handed(), ElementsAre("1 x", "2 x", "3 x", "1 x", "2 x", "3 x", "1 x", "2 x", "3 x"));
}

TEST_F(WorkerPoolTest, ALateAnswerReachesNobodyAndItsSlotIsTakenUntilTheWorkerSaysSo) {
  worker(1);
  call("slow", 100ms);
  now += 100ms;
  pool.turn(now);
  EXPECT_THAT(told, ElementsAre("slow!timeout"));
  EXPECT_EQ(port.cancelled.size(), 1U);
  call("next");
  pool.turn(now);
  EXPECT_EQ(handed().size(), 1U) << "it is still at the first one";
  reply(port.requests[0], "part", 0, true);
  EXPECT_EQ(pool.counters().late_answers, 1U);
  EXPECT_FALSE(pool.freed({1}, "{}"));
  EXPECT_TRUE(pool.freed({1}, freed_json(port.requests[0].request.request)));
  pool.turn(now);
  ASSERT_EQ(handed().size(), 2U);
  reply(port.requests[1], "mine");
  EXPECT_THAT(told, ElementsAre("slow!timeout", "next=mine"));
}

TEST_F(WorkerPoolTest, AnAnswerThatCrossesTheCancellationFreesTheSlotToo) {
  worker(1);
  pool.cancel(call("slow"));
  call("next");
  reply(port.requests[0], "late");
  pool.turn(now);
  EXPECT_THAT(handed(), ElementsAre("1 slow", "1 next"));
  EXPECT_THAT(told, IsEmpty());
}

TEST_F(WorkerPoolTest, WhatAWorkerHadWhenItWentAwayIsLostOrGivenToAnother) {
  worker(1, 4);
  call("once");
  call("heard", 5s, true);
  call("again", 5s, true);
  reply(port.requests[1], "part", 0, true);
  call("later");
  worker(2, 4);
  pool.on_peer_down({1}, "no sign of life");
  EXPECT_THAT(told, ElementsAre("heard+part", "once!lost", "heard!lost", "later!lost"));
  pool.turn(now);
  EXPECT_EQ(handed().back(), "2 again");
  reply(port.requests.back(), "done");
  EXPECT_EQ(told.back(), "again=done");
  EXPECT_EQ(pool.counters().repeated, 1U);
  EXPECT_EQ(pool.workers(), 1U);
}

TEST_F(WorkerPoolTest, AWorkerThatIsAboutToEndGivesBackWhatItHasNotBegun) {
  worker(1, 2);
  call("a");
  call("b");
  failure(port.requests[0], std::string(kLeavingFailure));
  ASSERT_TRUE(pool.ready({1}, {"w1", {""}, 0}));
  pool.turn(now);
  EXPECT_EQ(handed().size(), 2U);
  worker(2);
  pool.turn(now);
  EXPECT_EQ(handed().back(), "2 a");
  failure(port.requests[1], "its own");
  EXPECT_THAT(told, ElementsAre("b!remote its own"));
}

TEST_F(WorkerPoolTest, AnotherWorkerOfTheSameNameIsRefused) {
  worker(1);
  const auto refused = pool.ready({2}, {"w1", {""}, 1});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().context, HasSubstr("'w1'"));
  EXPECT_TRUE(pool.ready({1}, {"w1", {"other"}, 1})) << "the same one may say so again";
  EXPECT_FALSE(pool.has_worker(""));
  EXPECT_TRUE(pool.has_worker("other"));
}

TEST_F(WorkerPoolTest, WhatWaitsIsBounded) {
  for (int i = 0; i < 3; ++i)
    pool.start("",
               {"m",
                std::string(400, 'x'),
                {},
                {},
                [&](CallResult<std::string> result) { told.push_back(result ? "ok" : words(result.error())); }},
               now);
  EXPECT_THAT(told, ElementsAre("too_many_requests"));
}

TEST_F(WorkerPoolTest, AFullQueueIsNoLoss) {
  worker(1, 2);
  port.full = true;
  call("a");
  pool.turn(now);
  EXPECT_EQ(pool.waiting(), 1U);
  port.full = false;
  pool.turn(now);
  EXPECT_THAT(handed(), ElementsAre("1 a"));
}

TEST_F(WorkerPoolTest, WhatIsNoGreetingIsRefused) {
  EXPECT_TRUE(WorkerInfo::from_json(WorkerInfo{"w", {"a", ""}, 128}.to_json()));
  for (const char* text :
       {"", "[]", "{}", R"({"name":"","types":[""],"slots":1})", R"({"name":"w","types":[],"slots":1})",
        R"({"name":"w","types":[1],"slots":1})", R"({"name":"w","types":[""],"slots":129})",
        R"({"name":"w","types":[""],"slots":-1})", R"({"name":"w","types":"","slots":1})"}) {
    EXPECT_FALSE(WorkerInfo::from_json(text)) << text;
  }
}

/// Calls, answers, cancellations and workers that come and go, at random: every call ends exactly once, and no worker
/// has more in hand than it takes.
TEST_F(WorkerPoolTest, EveryCallEndsExactlyOnceWhateverHappens) {
  for (const std::uint64_t seed : test::seeds(200)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance random(seed);
    const auto below = [&](std::size_t n) { return random.between(std::size_t{0}, n - 1); };
    WorkersPort port_of_run;
    WorkerPool run(port_of_run, 1 << 20);
    std::map<int, int> ended;
    std::map<std::uint64_t, int> numbers;
    std::map<std::uint64_t, std::uint32_t> there;  // worker to slots
    std::map<std::pair<std::uint64_t, std::uint64_t>, bool> open;
    int begun = 0;
    std::size_t seen = 0;
    std::set<int> cancelled;
    const auto settle = [&] {
      for (; seen < port_of_run.requests.size(); ++seen) {
        const auto& sent = port_of_run.requests[seen];
        ASSERT_TRUE(there.contains(sent.worker.raw));
        open[{sent.worker.raw, sent.request.request}] = true;
        std::uint32_t in_hand = 0;
        for (const auto& [key, value] : open) in_hand += key.first == sent.worker.raw;
        ASSERT_LE(in_hand, there[sent.worker.raw]);
      }
    };
    for (int step = 0; step < 300; ++step) {
      switch (below(7)) {
        case 0:
        case 1: {
          const int id = begun++;
          CallTable::Call c;
          c.method = "m";
          c.options = {random.with(0.5) ? Duration(1s) : Duration{}, random.with(0.5)};
          c.on_done = [&ended, id](const CallResult<std::string>&) { ++ended[id]; };
          numbers[run.start("", std::move(c), now)] = id;
          break;
        }
        case 2: {
          const std::uint64_t peer = 1 + below(4);
          if (there.contains(peer)) break;
          there[peer] = static_cast<std::uint32_t>(1 + below(3));
          ASSERT_TRUE(run.ready({peer}, {"w" + std::to_string(peer), {""}, there[peer]}));
          break;
        }
        case 3: {
          if (there.empty() || !random.with(0.3)) break;
          const std::uint64_t peer = there.begin()->first;
          settle();
          there.erase(peer);
          std::erase_if(open, [&](const auto& o) { return o.first.first == peer; });
          run.on_peer_down({peer}, "gone");
          std::erase_if(port_of_run.cancelled, [&](const auto& c) { return c.first.raw == peer; });
          break;
        }
        case 4: {
          settle();
          if (open.empty()) break;
          const auto at = std::next(open.begin(), static_cast<std::ptrdiff_t>(below(open.size())));
          const auto [peer, request] = at->first;
          open.erase(at);
          const auto header = encoder.reply({request, 0, false}, {});
          const auto envelope = wire::open_envelope({}, header, {});
          // Whether it had heard that nobody waits any more, or answers all the same.
          if (port_of_run.was_cancelled({peer}, request) && random.with(0.5)) {
            ASSERT_TRUE(run.freed({peer}, freed_json(request)));
          } else {
            run.on_control({peer}, envelope->kind, envelope->body, Frame());
          }
          break;
        }
        case 5:
          if (!numbers.empty() && random.with(0.3)) {
            const auto at = std::next(numbers.begin(), static_cast<std::ptrdiff_t>(below(numbers.size())));
            if (!ended.contains(at->second)) cancelled.insert(at->second);
            run.cancel(at->first);
            numbers.erase(at);
          }
          break;
        default: now += std::chrono::milliseconds(below(300)); run.turn(now);
      }
      settle();
    }
    // Those that wait for ever are answered by one that takes all.
    there[9] = 128;
    ASSERT_TRUE(run.ready({9}, {"w9", {""}, 128}));
    for (int i = 0; i < 2000 && run.in_hand() + run.waiting() > 0; ++i) {
      run.turn(now);
      settle();
      if (open.empty()) continue;
      const auto [peer, request] = open.begin()->first;
      open.erase(open.begin());
      const auto header = encoder.reply({request, 0, false}, {});
      const auto envelope = wire::open_envelope({}, header, {});
      run.on_control({peer}, envelope->kind, envelope->body, Frame());
    }
    for (int id = 0; id < begun; ++id) {
      EXPECT_EQ(ended[id], cancelled.contains(id) ? 0 : 1) << id;
    }
  }
}

}  // namespace
}  // namespace fantail::rpc
