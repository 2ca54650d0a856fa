#include "common/stream/broadcaster.h"

#include <gmock/gmock.h>

#include <map>
#include <memory>

#include "common/base/digest.h"
#include "common/base/log.h"
#include "tests/support/seeded.h"

namespace fantail {
namespace {

/// Takes what fits, and keeps it.
class FakePort final : public BroadcastPort {
 public:
  struct Sent {
    std::string topic;
    wire::Chunk chunk;
    std::string raw;
    std::size_t payload_bytes;
    WhenFull when_full;
  };
  std::vector<Sent> sent;
  std::size_t room = SIZE_MAX;  ///< messages that fit before somebody's queue is full
  bool room_for_others = true;  ///< what kSkipThatReceiver finds
  bool anybody = true;

  Outcome send(BroadcastMessage& message, WhenFull when_full) override {
    if (room == 0 && (when_full == WhenFull::kBlock || !room_for_others)) return Outcome::kBlocked;
    if (room > 0 && room != SIZE_MAX) --room;
    const auto envelope = wire::open_envelope(message.topic.text(), message.header.bytes(), message.payload.bytes());
    EXPECT_TRUE(envelope) << "damaged by ourselves";
    const auto chunk = wire::decode_chunk(envelope->body, message.payload.bytes());
    EXPECT_TRUE(chunk);
    const auto raw = decompressor_.raw(*chunk, message.payload.bytes());
    EXPECT_TRUE(raw);
    sent.push_back(
        {std::string(message.topic.text()), *chunk, std::string(as_text(*raw)), message.payload.size(), when_full});
    return Outcome::kSent;
  }
  bool wanted(std::string_view) const override { return anybody; }

 private:
  wire::ChunkDecompressor decompressor_;
};

class FakeFile final : public StreamSource {
 public:
  std::string bytes;
  std::optional<ErrorCode> fails;
  std::uint64_t marked = 0;

  Result<std::size_t> read_at(FileOffset offset, std::span<std::byte> buffer) override {
    if (fails) return fail(*fails, "as the test wants");
    const auto there = std::string_view(bytes).substr(std::min(bytes.size(), offset.raw), buffer.size());
    std::copy(there.begin(), there.end(), reinterpret_cast<char*>(buffer.data()));
    return there.size();
  }
  void mark_sent(FileOffset sent, std::span<const std::byte> last) override {
    EXPECT_EQ(as_text(last), std::string_view(bytes).substr(sent.raw - last.size(), last.size()));
    marked = sent.raw;
  }
};

class BroadcasterTest : public testing::Test {
 protected:
  BroadcasterTest() {
    log::set_up(log::Level::kOff);
    config.chunk_bytes = 1000;
    config.compression.mode = CompressionConfig::Mode::kNone;
  }
  ~BroadcasterTest() override { log::set_up(log::Level::kInfo); }

  void start() {
    broadcaster = std::make_unique<Broadcaster>(
        config, streams, port, pool,
        Broadcaster::Callbacks{
            .wanted = [this](const PublishedStream& s) { return port.anybody && s.info.topic != "unwanted"; },
            .receivers = [this] { return receivers; },
            .sent = [this](PublishedStream&) { ++told_sent; },
            .broken = [this](PublishedStream& s, const Error&) { broken.push_back(s.info.stream); }});
  }
  PublishedStream& file(std::uint64_t n, std::string bytes, const std::string& topic = "log") {
    if (!broadcaster) start();
    FakeFile& f = files[n];
    f.bytes = std::move(bytes);
    wire::StreamInfo info;
    info.stream = {n, n};
    info.sequence = n;
    info.topic = topic;
    info.head = {f.bytes.size()};
    PublishedStream& stream = streams.add(info, &f);
    broadcaster->enqueue(stream);
    return stream;
  }
  void grow(std::uint64_t n, const std::string& bytes) {
    files[n].bytes += bytes;
    PublishedStream& stream = *streams.find({n, n});
    stream.info.head = {files[n].bytes.size()};
    broadcaster->enqueue(stream);
  }
  std::size_t turn(Duration later = 1ms) { return broadcaster->turn(now += later); }
  void turns(Duration span) {
    for (const MonoTime until = now + span; now < until;) turn();
  }
  std::string sent_of(std::uint64_t n) const {
    std::string out;
    for (const auto& s : port.sent) {
      if (s.chunk.stream != StreamId{n, n}) continue;
      EXPECT_EQ(s.chunk.offset.raw, out.size());
      out += s.raw;
    }
    return out;
  }

  BroadcastConfig config;
  PublishedStreams streams;
  FakePort port;
  FramePool pool{256 * 1024, 4};
  std::unique_ptr<Broadcaster> broadcaster;
  std::map<std::uint64_t, FakeFile> files;
  std::vector<StreamId> broken;
  std::size_t receivers = 1;
  int told_sent = 0;
  MonoTime now = MonoTime{} + 1h;
  test::Chance chance{1};
};

TEST_F(BroadcasterTest, SendsWhatIsThereInChunksAndInOrder) {
  const std::string text = chance.text(2500);
  PublishedStream& stream = file(1, text);
  EXPECT_EQ(turn(), 3U);
  EXPECT_EQ(sent_of(1), text);
  EXPECT_EQ(stream.info.sent, FileOffset{2500});
  EXPECT_EQ(files[1].marked, 2500U);
  EXPECT_EQ(told_sent, 3);
  EXPECT_EQ(port.sent[0].topic, "d/log/");
  EXPECT_EQ(turn(), 0U);
  EXPECT_EQ(broadcaster->due(now), std::nullopt);
}

TEST_F(BroadcasterTest, SendsALiveChunkAsSoonAsItIsThere) {
  file(1, "");
  EXPECT_EQ(turn(), 0U);
  grow(1, "x");
  EXPECT_EQ(turn(), 1U);
  EXPECT_EQ(sent_of(1), "x");
}

TEST_F(BroadcasterTest, TheLastChunkOfASealedStreamSaysSo) {
  PublishedStream& stream = file(1, chance.text(1500));
  stream.info.sealed = true;
  turn();
  ASSERT_EQ(port.sent.size(), 2U);
  EXPECT_FALSE(port.sent[0].chunk.sealed);
  EXPECT_TRUE(port.sent[1].chunk.sealed);
}

TEST_F(BroadcasterTest, StreamsThatNobodyWantsWaitUntilSomebodyDoes) {
  port.anybody = false;
  file(1, "text");
  turns(100ms);
  EXPECT_THAT(port.sent, testing::IsEmpty());
  grow(1, "more");
  turns(100ms);
  port.anybody = true;
  broadcaster->unpark();
  turn();
  EXPECT_EQ(sent_of(1), "textmore");
}

TEST_F(BroadcasterTest, AnUnwantedTopicDoesNotHoldUpAnother) {
  file(1, "text", "unwanted");
  file(2, "text");
  turn();
  EXPECT_EQ(sent_of(2), "text");
}

TEST_F(BroadcasterTest, ALongBacklogSharesATurnWithAQuietStream) {
  config.chunk_bytes = 256 * 1024;
  file(1, chance.text(8 * 1024 * 1024));
  file(2, "quiet");
  turn();
  EXPECT_EQ(sent_of(2), "quiet");
}

TEST_F(BroadcasterTest, AQuietStreamGetsThroughThoughTheWireIsFullOfAnother) {
  config.chunk_bytes = 10'000;
  file(1, chance.text(2'000'000));
  file(2, "quiet");
  for (int i = 0; i < 10; ++i) {  // the wire takes one message at a time
    port.room = 1;
    turn();
  }
  EXPECT_EQ(sent_of(2), "quiet");
}

TEST_F(BroadcasterTest, AQuietStreamGetsThroughThoughPacingHoldsBackAnother) {
  config.chunk_bytes = 10'000;
  config.rate_bytes_per_s = 1'000'000;
  file(1, chance.text(5'000'000));
  file(2, "quiet");
  turns(100ms);
  EXPECT_EQ(sent_of(2), "quiet");
}

TEST_F(BroadcasterTest, PacingHoldsTheRate) {
  config.rate_bytes_per_s = 1'000'000;
  file(1, chance.text(5'000'000));
  turns(2s);
  EXPECT_NEAR(static_cast<double>(broadcaster->counters().wire_bytes_sent), 2e6, 0.05e6);
}

TEST_F(BroadcasterTest, AFullReceiverIsWaitedForWithinPatienceAndThenSkipped) {
  port.room = 0;
  file(1, "text");
  turns(199ms);
  EXPECT_THAT(port.sent, testing::IsEmpty());
  EXPECT_TRUE(broadcaster->blocked());
  EXPECT_LE(*broadcaster->due(now), now + 1ms);
  turns(10ms);
  ASSERT_EQ(port.sent.size(), 1U);
  EXPECT_EQ(port.sent[0].when_full, BroadcastPort::WhenFull::kSkipThatReceiver);
  EXPECT_EQ(broadcaster->counters().chunks_skipped_a_receiver, 1U);
  EXPECT_FALSE(broadcaster->blocked());
}

TEST_F(BroadcasterTest, ALoneSlowReceiverIsWaitedForEachTime) {
  port.room = 0;
  file(1, "one");
  turns(210ms);
  ASSERT_EQ(port.sent.size(), 1U);
  grow(1, "two");
  turns(190ms);
  EXPECT_EQ(port.sent.size(), 1U);
  turns(20ms);
  EXPECT_EQ(sent_of(1), "onetwo");
}

TEST_F(BroadcasterTest, AStoppedReceiverCostsOthersATenthOfTheTimeAtMost) {
  receivers = 2;
  port.room = 0;  // for ever
  file(1, "");
  Duration waited{};
  for (int i = 0; i < 20'000; ++i) {
    if (i % 10 == 0) grow(1, "line\n");
    turn(1ms);
    if (broadcaster->blocked()) waited += 1ms;
  }
  EXPECT_LT(waited, 2500ms) << "of 20 s";
  EXPECT_GT(sent_of(1).size(), 9'000U);
}

TEST_F(BroadcasterTest, WhatWaitsIsSentOnceWhenThereIsRoom) {
  port.room = 0;
  file(1, "text");
  turns(50ms);
  port.room = 1;
  turns(50ms);
  EXPECT_EQ(sent_of(1), "text");
  EXPECT_EQ(port.sent.size(), 1U);
}

TEST_F(BroadcasterTest, BytesThatCameWhileWaitingGoInOneChunk) {
  port.room = 0;
  file(1, "a");
  for (int i = 0; i < 50; ++i) {
    turn();
    grow(1, "b");
  }
  port.room = SIZE_MAX;
  turn();
  turn();
  EXPECT_EQ(sent_of(1), "a" + std::string(50, 'b'));
  EXPECT_LE(port.sent.size(), 3U);
}

TEST_F(BroadcasterTest, AReplacedFileIsReportedAndNothingOfItSent) {
  file(1, "text");
  files[1].fails = ErrorCode::kReplaced;
  turn();
  EXPECT_EQ(broken, std::vector<StreamId>{(StreamId{1, 1})});
  EXPECT_THAT(port.sent, testing::IsEmpty());
}

TEST_F(BroadcasterTest, ASourceThatIsOnItsWayIsAskedAgainAtOnceAndHoldsUpNobody) {
  file(1, "one");
  file(2, "two");
  files[1].fails = ErrorCode::kWouldBlock;
  turns(3ms);
  EXPECT_EQ(sent_of(2), "two");
  EXPECT_EQ(broadcaster->due(now), now);
  EXPECT_EQ(broadcaster->counters().read_errors, 0U);
  files[1].fails.reset();
  turn();
  EXPECT_EQ(sent_of(1), "one");
}

TEST_F(BroadcasterTest, AReadErrorIsTriedAgainAndHoldsUpNobody) {
  file(1, "text");
  files[1].fails = ErrorCode::kIo;
  turn();
  file(2, "other");
  turn();
  EXPECT_EQ(sent_of(2), "other");
  files[1].fails.reset();
  turns(1100ms);
  EXPECT_EQ(sent_of(1), "text");
  EXPECT_EQ(broadcaster->counters().read_errors, 1U);
}

TEST_F(BroadcasterTest, AStreamThatIsForgottenWhileItsChunkWaitsIsNotSent) {
  port.room = 0;
  file(1, "text");
  turn();
  broadcaster->forget({1, 1});
  streams.remove({1, 1});
  port.room = SIZE_MAX;
  file(2, "other");
  turn();
  EXPECT_EQ(sent_of(1), "");
  EXPECT_EQ(sent_of(2), "other");
}

TEST_F(BroadcasterTest, CompressibleBytesTravelCompressed) {
  config.chunk_bytes = 100'000;
  config.compression.mode = CompressionConfig::Mode::kZstd;
  const std::string text(100'000, 'a');
  file(1, text);
  turns(100ms);
  EXPECT_EQ(sent_of(1), text);
  EXPECT_LT(broadcaster->counters().wire_bytes_sent, 5000U);
}

TEST_F(BroadcasterTest, NothingTravelsLargerThanItIs) {
  config.compression.mode = CompressionConfig::Mode::kZstd;
  std::string noise;
  for (int i = 0; i < 5000; ++i) noise += static_cast<char>(chance.between(std::size_t{0}, std::size_t{255}));
  file(1, noise);
  file(2, "tiny");
  turns(100ms);
  EXPECT_EQ(sent_of(1), noise);
  for (const auto& s : port.sent) EXPECT_LE(s.payload_bytes, s.raw.size());
}

TEST_F(BroadcasterTest, AutomaticCompressionBeginsWhenTheWireIsSlow) {
  config.chunk_bytes = 10'000;
  config.compression.mode = CompressionConfig::Mode::kAuto;
  config.rate_bytes_per_s = 1'000'000;
  const std::string text(10'000'000, 'a');
  file(1, text);
  turns(1s);
  EXPECT_GT(broadcaster->counters().raw_bytes_sent, 2 * broadcaster->counters().wire_bytes_sent);
  EXPECT_TRUE(std::string_view(text).starts_with(sent_of(1)));
}

TEST_F(BroadcasterTest, ReportedLossMakesMessagesSmallerWhereAsked) {
  config.chunk_bytes = 64 * 1024;
  config.adapt_to_loss = true;
  file(1, chance.text(200'000));
  for (int i = 0; i < 20; ++i) broadcaster->reported_loss(now += 1s);
  turn();
  ASSERT_FALSE(port.sent.empty());
  EXPECT_LE(port.sent[0].raw.size(), 1500U);
}

}  // namespace
}  // namespace fantail
