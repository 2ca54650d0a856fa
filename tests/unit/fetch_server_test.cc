#include "common/stream/fetch_server.h"

#include <gmock/gmock.h>

#include <map>
#include <memory>

#include "common/base/digest.h"
#include "common/base/log.h"
#include "tests/support/seeded.h"

namespace fantail {
namespace {

constexpr PeerId kPeer{1};
constexpr PeerId kOther{2};

/// Answers as text: "data 0-4", "end 4", "lost 0-4 truncated...".
class FakeLinks final : public ControlPort {
 public:
  std::map<PeerId, std::vector<std::string>> answers;
  std::map<PeerId, std::string> bytes;
  std::vector<PeerId> order;           ///< in which they were sent something
  std::map<PeerId, std::size_t> room;  ///< messages; absent: any number
  bool keep_frames = false;            ///< as a stopped peer's queue does
  std::vector<Frame> kept;

  using ControlPort::send;
  bool send(PeerId peer, std::span<const std::byte> header, Frame payload) override {
    if (const auto r = room.find(peer); r != room.end() && r->second-- == 0) {
      r->second = 0;
      return false;
    }
    const auto envelope = wire::open_envelope({}, header, payload.bytes());
    EXPECT_TRUE(envelope);
    answers[peer].push_back(describe(peer, *envelope, payload));
    order.push_back(peer);
    if (keep_frames) kept.push_back(std::move(payload));
    return true;
  }

 private:
  std::string describe(PeerId peer, const wire::Envelope& envelope, const Frame& payload) {
    const auto range = [](FileOffset from, FileOffset to) {
      return std::to_string(from.raw) + "-" + std::to_string(to.raw);
    };
    if (const auto m = wire::decode_fetch_data(envelope.body, payload.bytes());
        envelope.kind == wire::Kind::kFetchData && m) {
      bytes[peer] += payload.text();
      return "data " + range(m->chunk.offset, m->chunk.end());
    }
    if (const auto m = wire::decode_fetch_end(envelope.body); envelope.kind == wire::Kind::kFetchEnd && m) {
      return "end " + std::to_string(m->to.raw);
    }
    if (const auto m = wire::decode_unavailable(envelope.body); envelope.kind == wire::Kind::kUnavailable && m) {
      return "lost " + range(m->range.from, m->range.to) + " " + std::to_string(static_cast<int>(m->reason));
    }
    return "something else";
  }
};

class FakeFile final : public StreamSource {
 public:
  std::string bytes;
  std::optional<ErrorCode> fails;
  Result<std::size_t> read_at(FileOffset offset, std::span<std::byte> buffer) override {
    if (fails) return fail(*fails, "as the test wants");
    const auto there = std::string_view(bytes).substr(std::min(bytes.size(), offset.raw), buffer.size());
    std::copy(there.begin(), there.end(), reinterpret_cast<char*>(buffer.data()));
    return there.size();
  }
  void mark_sent(FileOffset, std::span<const std::byte>) override { ADD_FAILURE() << "a fetch is no broadcast"; }
};

class FetchServerTest : public testing::Test {
 protected:
  FetchServerTest() { log::set_up(log::Level::kOff); }
  ~FetchServerTest() override { log::set_up(log::Level::kInfo); }

  PublishedStream& file(std::size_t bytes) {
    source.bytes = chance.text(bytes);
    wire::StreamInfo info;
    info.stream = {1, 1};
    info.sequence = 1;
    info.topic = "log";
    info.head = {bytes};
    return streams.add(info, &source);
  }
  void fetch(std::uint64_t from, std::uint64_t to, PeerId peer = kPeer) {
    wire::Fetch request;
    request.request = ++requests;
    request.stream = {1, 1};
    request.range = {{from}, {to}};
    server.add(peer, request);
  }
  void serve() {
    for (int i = 0; i < 1000 && server.turn(now) > 0; ++i) now += 1ms;
  }
  const std::vector<std::string>& answers(PeerId peer = kPeer) { return links.answers[peer]; }

  MonoTime now = MonoTime{} + 1h;
  test::Chance chance{1};
  FakeLinks links;
  FakeFile source;
  PublishedStreams streams;
  std::vector<StreamId> broken;
  std::optional<wire::LossReason> seal_when_broken = wire::LossReason::kTruncated;
  std::uint64_t requests = 0;
  FetchServer server{
      1000,
      streams,
      links,
      {.broken =
           [this](PublishedStream& s, const Error&) {
             broken.push_back(s.info.stream);
             if (!seal_when_broken) return;
             s.source = nullptr;
             s.gone = *seal_when_broken;
           },
       .to_payload = [](wire::Chunk& chunk, FramePool::Buffer&& raw,
                        FramePool& of_peer) { return of_peer.to_frame(std::move(raw), chunk.raw_length); }}};
};

using testing::ElementsAre;

TEST_F(FetchServerTest, SendsARangeInChunksAndThenItsEnd) {
  file(5000);
  fetch(100, 2600);
  serve();
  EXPECT_THAT(answers(), ElementsAre("data 100-1100", "data 1100-2100", "data 2100-2600", "end 2600"));
  EXPECT_EQ(links.bytes[kPeer], source.bytes.substr(100, 2500));
  EXPECT_TRUE(server.idle());
}

TEST_F(FetchServerTest, AnswersOnlyAsFarAsThereIsSomething) {
  file(500);
  fetch(100, 9000);
  fetch(500, 9000);
  serve();
  EXPECT_THAT(answers(), ElementsAre("data 100-500", "end 500", "end 500"));
}

TEST_F(FetchServerTest, AnUnknownStreamIsUnavailable) {
  fetch(0, 100);
  serve();
  EXPECT_THAT(answers(), ElementsAre("lost 0-100 1"));
}

TEST_F(FetchServerTest, WhatLiesBelowTheBaseIsUnavailable) {
  file(500).info.base = {200};
  fetch(100, 300);
  fetch(200, 300);
  serve();
  EXPECT_THAT(answers(), ElementsAre("lost 100-200 0", "data 200-300", "end 300"));
}

TEST_F(FetchServerTest, WhatIsGoneIsUnavailableWithItsReason) {
  PublishedStream& stream = file(500);
  stream.source = nullptr;
  stream.gone = wire::LossReason::kHoldExceeded;
  fetch(100, 9000);
  serve();
  EXPECT_THAT(answers(), ElementsAre("lost 100-500 4"));
  EXPECT_EQ(server.counters().unavailable_bytes, 400U);
}

TEST_F(FetchServerTest, WhatIsBehindTheReadablePartIsUnavailableAndTheRestServed) {
  PublishedStream& stream = file(500);
  stream.info.head = {501};
  stream.lost_from = FileOffset{500};
  stream.gone = wire::LossReason::kArchiveDamaged;
  fetch(100, 501);
  fetch(500, 501);
  fetch(0, 100);
  serve();
  EXPECT_THAT(answers(), ElementsAre("data 100-500", "lost 500-501 6", "lost 500-501 6", "data 0-100", "end 100"));
}

TEST_F(FetchServerTest, ASourceThatIsOnItsWayIsAskedAgainAndOthersDoNotWaitForIt) {
  file(500);
  FakeFile ready;
  ready.bytes = chance.text(50);
  wire::StreamInfo info;
  info.stream = {2, 2};
  info.sequence = 2;
  info.topic = "log";
  info.head = {50};
  streams.add(info, &ready);
  source.fails = ErrorCode::kWouldBlock;
  fetch(100, 200);
  server.add(kPeer, {77, {2, 2}, {{0}, {50}}, false});
  EXPECT_GT(server.turn(now), 0U);
  EXPECT_GT(server.turn(now), 0U);
  EXPECT_THAT(answers(), ElementsAre("data 0-50", "end 50"));
  EXPECT_FALSE(server.idle());
  fetch(100, 200);  // asked again meanwhile: one answer is enough
  source.fails.reset();
  serve();
  EXPECT_THAT(answers(), ElementsAre("data 0-50", "end 50", "data 100-200", "end 200"));
}

TEST_F(FetchServerTest, AFileFoundToBeReplacedIsReportedAndItsBytesAreLost) {
  file(500);
  source.fails = ErrorCode::kReplaced;
  fetch(0, 100);
  serve();
  EXPECT_EQ(broken.size(), 1U);
  EXPECT_THAT(answers(), ElementsAre("lost 0-100 2"));
}

TEST_F(FetchServerTest, AReadErrorThatMayPassEndsTheAnswerWithoutALoss) {
  file(500);
  source.fails = ErrorCode::kIo;
  fetch(0, 100);
  serve();
  EXPECT_THAT(answers(), ElementsAre("end 0"));
}

TEST_F(FetchServerTest, AFullLinkIsWaitedForAndNothingIsSentTwice) {
  file(3000);
  links.room[kPeer] = 2;
  fetch(0, 3000);
  serve();
  EXPECT_THAT(answers(), ElementsAre("data 0-1000", "data 1000-2000"));
  links.room.clear();
  serve();
  EXPECT_EQ(answers().back(), "end 3000");
  EXPECT_EQ(links.bytes[kPeer], source.bytes);
}

TEST_F(FetchServerTest, AFullLinkDoesNotHoldUpAnother) {
  file(3000);
  links.room[kPeer] = 0;
  fetch(0, 3000);
  fetch(0, 3000, kOther);
  serve();
  EXPECT_EQ(links.bytes[kOther], source.bytes);
}

TEST_F(FetchServerTest, PeersAreServedInTurns) {
  file(4'000'000);
  fetch(0, 4'000'000);
  fetch(0, 1000, kOther);
  server.turn(now);
  EXPECT_THAT(answers(kOther), ElementsAre("data 0-1000", "end 1000"));
  EXPECT_LT(links.bytes[kPeer].size(), 4'000'000U);
}

TEST_F(FetchServerTest, MoreRequestsThanItKeepsAreRefusedAndCounted) {
  file(10);
  for (int i = 0; i < 2000; ++i) fetch(0, 10);
  EXPECT_EQ(server.counters().refused_queue_full, 2000U - 1024U);
  serve();
  EXPECT_EQ(answers().size(), 2U * 1024U);
}

TEST_F(FetchServerTest, AForgottenPeerGetsNothingMore) {
  file(500);
  fetch(0, 500);
  server.forget(kPeer);
  serve();
  EXPECT_THAT(answers(), testing::IsEmpty());
  EXPECT_TRUE(server.idle());
}

/// Large chunks to peers whose queues keep what they are sent.
class FetchMemoryTest : public FetchServerTest {
 protected:
  FetchMemoryTest() {
    file(40'000'000);
    links.keep_frames = true;
  }
  void fetch_all(PeerId peer) { with_large_chunks.add(peer, {1, {1, 1}, {{0}, {40'000'000}}, false}); }
  std::size_t serve() {
    while (with_large_chunks.turn(now) > 0) {
    }
    return served();
  }
  std::size_t served(PeerId peer = kPeer) { return links.bytes[peer].size(); }
  FetchServer with_large_chunks{
      256 * 1024,
      streams,
      links,
      {.broken = {}, .to_payload = [](wire::Chunk& chunk, FramePool::Buffer&& raw, FramePool& of_peer) {
         return of_peer.to_frame(std::move(raw), chunk.raw_length);
       }}};
};

TEST_F(FetchMemoryTest, OnTheWayOutIsBounded) {
  fetch_all(kPeer);
  EXPECT_LE(serve(), 17U * 1024 * 1024);
  links.kept.clear();
  EXPECT_GT(serve(), 20'000'000U);
}

TEST_F(FetchMemoryTest, APeerThatTakesNothingHoldsUpItselfOnly) {
  fetch_all(kPeer);
  const std::size_t stuck = serve();
  fetch_all(kOther);
  serve();
  EXPECT_GE(served(kOther), 7U * 1024 * 1024);
  EXPECT_EQ(served(), stuck);
  with_large_chunks.forget(kPeer);
  const std::size_t before = served(kOther);
  serve();
  EXPECT_GT(served(kOther), before) << "the share of one that is gone is free";
}

TEST_F(FetchServerTest, AnotherPeerIsTheFirstInEachTurn) {
  file(4'000'000);
  fetch(0, 4'000'000);
  fetch(0, 4'000'000, kOther);
  std::vector<PeerId> first;
  for (int i = 0; i < 4; ++i) {
    links.order.clear();
    server.turn(now);
    first.push_back(links.order.at(0));
  }
  EXPECT_EQ(first[0], first[2]);
  EXPECT_EQ(first[1], first[3]);
  EXPECT_NE(first[0], first[1]);
}

}  // namespace
}  // namespace fantail
