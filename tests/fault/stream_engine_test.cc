#include <gmock/gmock.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <memory>

#include "common/base/digest.h"
#include "common/base/log.h"
#include "common/stream/stream_publisher.h"
#include "common/stream/stream_subscriber.h"
#include "tests/support/recording_consumer.h"
#include "tests/support/seeded.h"

/// The stream engine over links that lose, repeat, reorder and damage what they carry. Whatever happens on the way, in
/// the end each stream was delivered byte for byte, once and in order, or what is missing was recorded as lost.
namespace fantail {
namespace {

using test::Chance;
using test::Faults;
using test::Received;
using test::RecordingConsumer;

constexpr Duration kStep = 5ms;

/// A stream as it really is: all the bytes it ever had, and how it ended.
struct Truth final : StreamSource {
  wire::StreamInfo info;  ///< as added
  std::string bytes;
  FileOffset marked;  ///< read for the broadcast
  bool replaced = false;
  bool unreadable = false;  ///< for now
  std::optional<FileOffset> final_length;
  std::optional<wire::LossReason> gone;
  bool removed = false;

  Result<std::size_t> read_at(FileOffset offset, std::span<std::byte> buffer) override {
    if (replaced) return fail(ErrorCode::kReplaced, "replaced");
    if (unreadable) return fail(ErrorCode::kIo, "unreadable for now");
    const auto there = std::string_view(bytes).substr(std::min(bytes.size(), offset.raw), buffer.size());
    std::copy(there.begin(), there.end(), reinterpret_cast<char*>(buffer.data()));
    return there.size();
  }
  void mark_sent(FileOffset sent, std::span<const std::byte>) override { marked = sent; }
  FileOffset end() const { return final_length.value_or(FileOffset{bytes.size()}); }
};

/// One source, its consumers and the links between them, in simulated time.
class StreamEngineTest : public testing::Test, public PublisherEvents {
 protected:
  StreamEngineTest() { log::set_up(log::Level::kOff); }
  ~StreamEngineTest() override { log::set_up(log::Level::kInfo); }

  void begin(std::uint64_t seed) {
    chance = std::make_unique<Chance>(seed);
    publishing.node = random_id<NodeId>();
    publishing.name = "source";
    publishing.broadcast.chunk_bytes = 1024;
    start_source();
  }
  void end() {
    consumers.clear();
    broadcast.inlets.clear();
    control.links.clear();
    publisher.reset();
    truths.clear();
    by_id.clear();
    ledger = {};
    saved.clear();
    sequence = 0;
  }

  // ---- what may happen

  RecordingConsumer& consumer(const std::string& name, std::size_t max_pending_bytes = 1'000'000) {
    SubscriberConfig config;
    config.max_pending_bytes = max_pending_bytes;
    return consumer(name, config);
  }
  RecordingConsumer& consumer(const std::string& name, SubscriberConfig config) {
    consumers.push_back(std::make_unique<RecordingConsumer>(name, *chance, config));
    RecordingConsumer& c = *consumers.back();
    broadcast.inlets.push_back(&c.inlet);
    control.links.push_back(&c.link);
    return c;
  }
  void connect(RecordingConsumer& c) {
    wire::Peer me;
    me.node = publishing.node;
    me.name = publishing.name;
    me.instance = publishing.instance;
    c.link.come_up(*publisher, me, c.subscriber(), c.peer());
  }

  Truth& stream(const std::string& topic = "log") {
    truths.push_back(std::make_unique<Truth>());
    Truth& t = *truths.back();
    t.info.stream = StreamId{chance->between(std::size_t{1}, SIZE_MAX), ++sequence};
    t.info.sequence = sequence;
    t.info.topic = topic;
    t.info.path = "/log/" + std::to_string(sequence);
    by_id[t.info.stream] = &t;
    publisher->add(t.info, &t);
    return t;
  }
  void append(Truth& t, std::string_view text) {
    t.bytes += text;
    publisher->advance(t.info.stream, {t.bytes.size()});
  }
  void append(Truth& t, std::size_t bytes) { append(t, chance->text(bytes)); }
  void seal(Truth& t) {
    t.final_length = FileOffset{t.bytes.size()};
    publisher->seal(t.info.stream, *t.final_length, std::nullopt);
  }
  /// The file is another one now; the source finds out when it reads.
  void replace(Truth& t) { t.replaced = true; }

  void on_broken(StreamId id, const Error&) override {
    Truth& t = *by_id.at(id);
    if (t.gone) return;
    t.gone = wire::LossReason::kTruncated;
    t.final_length = t.marked;
    publisher->seal(id, t.marked, t.gone);
    append(stream(), 100);
  }
  void on_sent(const wire::StreamInfo&) override {}
  void on_commit(const std::string&, StreamId, FileOffset) override {}
  void on_consumer(const std::string&, const Interest&) override {}
  void on_consumer_up(PeerId peer, const wire::Peer&) override { up.push_back(peer); }
  void on_known(PeerId, const wire::Streams& known) override { answers.push_back(known); }

  /// As the registry does once a second.
  void save() {
    for (const auto& t : truths) {
      if (const wire::StreamInfo* info = publisher->info(t->info.stream)) saved[t->info.stream] = *info;
    }
  }
  /// The source dies and comes back with what it saved.
  void restart_source() {
    start_source();
    for (const auto& t : truths) {
      if (t->removed) continue;
      wire::StreamInfo info = t->info;
      if (const auto known = saved.find(info.stream); known != saved.end()) info = known->second;
      if (t->gone) info.sent = info.head = *t->final_length;
      info.sealed = t->final_length.has_value();
      t->marked = std::min(t->marked, info.sent);
      publisher->add(info, t->gone ? nullptr : t.get(), t->gone.value_or(wire::LossReason::kUnknown));
      if (t->final_length) {
        publisher->seal(info.stream, *t->final_length, t->gone);
      } else {
        publisher->advance(info.stream, {t->bytes.size()});
      }
    }
  }
  /// Streams that everybody has are forgotten, as the registry does.
  void sweep() {
    for (const auto& t : truths) {
      const wire::StreamInfo* info = publisher->info(t->info.stream);
      if (info == nullptr || !info->sealed) continue;
      const auto held = ledger.held_for(*info);
      if (!held || *held < info->head) continue;
      publisher->remove(t->info.stream);
      t->removed = true;
    }
  }

  // ---- time

  void step() {
    now += kStep;
    broadcast.now = now;
    for (const auto& c : consumers) c->link.pass(now);
    publisher->turn(now);
    for (const auto& c : consumers) c->turn(now);
  }
  void run(Duration span) {
    for (const MonoTime until = now + span; now < until;) step();
  }
  template <class Condition>
  bool run_until(const Condition& condition, Duration limit = 120s) {
    for (const MonoTime until = now + limit; now < until;) {
      if (condition()) return true;
      step();
    }
    return condition();
  }

  /// A beacon of the source, as it goes out by broadcast.
  test::LooseMessage broadcast_beacon(const wire::Head& head) {
    const wire::Beacon beacon{publishing.node, publishing.instance, publishing.name, {}, 0, {head}};
    const std::string topic = wire::beacon_topic_frame(publishing.node);
    wire::Encoder encoder;
    return {topic, std::string(as_text(encoder.beacon(beacon, topic))), {}};
  }

  // ---- what must be so

  /// Empty when this consumer has all that it can have of everything.
  std::string incomplete(RecordingConsumer& c) {
    for (const auto& t : truths) {
      const Received* r = c.of(t->info.stream);
      const std::string which = "stream " + std::to_string(t->info.sequence) + ": ";
      if (r == nullptr) {
        if (t->removed) continue;  // before this consumer ever saw it, so it has nothing of it that is wanted
        return which + "not known";
      }
      if (r->cursor() < t->end()) {
        return which + "at " + std::to_string(r->cursor().raw) + " of " + std::to_string(t->end().raw);
      }
      if (t->removed) continue;  // all of it was committed, so its end was of no more interest
      if (t->final_length.has_value() != r->final_length.has_value()) {
        return which + (t->final_length ? "not told that it is sealed" : "told that it is sealed");
      }
    }
    return c.subscriber().overview().settled ? "" : "not settled";
  }
  void expect_true_and_exact(RecordingConsumer& c) {
    EXPECT_THAT(c.wrong, testing::IsEmpty());
    for (const auto& [id, r] : c.received()) {
      const Truth& t = *by_id.at(id);
      const std::string which = "stream " + std::to_string(t.info.sequence);
      std::string expected = t.bytes.substr(r.begin.raw, r.bytes.size());
      for (const auto& loss : r.losses) {
        EXPECT_TRUE(t.gone) << which << ": a loss, though its bytes can be read";
        // A source that died may know less of a stream than it had sent, and forget it before this consumer has it.
        const bool forgotten = t.removed && loss.reason == wire::LossReason::kStreamUnknown;
        EXPECT_TRUE(loss.reason == t.gone || forgotten) << which << ": " << wire::to_string(loss.reason);
        EXPECT_LE(loss.range.to, forgotten ? FileOffset{t.bytes.size()} : t.end()) << which;
        expected.replace(loss.range.from - r.begin, loss.range.bytes(), loss.range.bytes(), '\0');
      }
      EXPECT_EQ(r.bytes == expected, true) << which << ": other bytes than the source had";
      if (r.final_length) {
        EXPECT_EQ(r.final_length, t.final_length) << which;
      }
    }
  }
  void expect_everything_arrives() {
    for (const auto& c : consumers) {
      run_until([&] { return incomplete(*c).empty(); });
      EXPECT_EQ(incomplete(*c), "") << "after " << to_milliseconds(now - start) << " ms";
      expect_true_and_exact(*c);
    }
  }
  std::uint64_t lost_bytes(RecordingConsumer& c) { return c.subscriber().counters().lost_bytes; }

  const MonoTime start = MonoTime{} + 1h;
  MonoTime now = start;
  std::unique_ptr<Chance> chance;
  test::MemoryBroadcast broadcast;
  test::SourceControl control;
  CommitLedger ledger;
  PublisherConfig publishing;
  FramePool pool{1024, 8};
  std::unique_ptr<StreamPublisher> publisher;
  std::vector<std::unique_ptr<RecordingConsumer>> consumers;
  std::vector<std::unique_ptr<Truth>> truths;
  std::map<StreamId, Truth*> by_id;
  std::map<StreamId, wire::StreamInfo> saved;
  std::vector<PeerId> up;
  std::vector<wire::Streams> answers;
  std::uint64_t sequence = 0;

  /// With no stream: add them, or restart_source().
  void start_source() {
    for (const auto& c : consumers) c->link.go_down();
    publishing.instance = random_id<InstanceId>();
    publisher = std::make_unique<StreamPublisher>(publishing, broadcast, control, pool, ledger, *this);
  }
};

// ---- one thing at a time

TEST_F(StreamEngineTest, OverAPerfectLinkEverythingIsBroadcastAndNothingIsFetched) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  Truth& t = stream();
  append(t, 10'000);
  run(1s);
  append(t, 10'000);
  seal(t);
  expect_everything_arrives();
  EXPECT_EQ(c.subscriber().counters().fetches, 0U);
  EXPECT_EQ(c.subscriber().counters().bytes_delivered, 20'000U);
}

TEST_F(StreamEngineTest, AConsumerThatIsCutOffFromTheBroadcastFetchesAll) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  RecordingConsumer& other = consumer("other");
  c.inlet.listening = false;
  connect(c);
  connect(other);
  append(stream(), 50'000);
  expect_everything_arrives();
  EXPECT_EQ(c.subscriber().counters().bytes_fetched, 50'000U);
  EXPECT_EQ(other.subscriber().counters().bytes_fetched, 0U);
}

TEST_F(StreamEngineTest, WhatIsLostOnTheWayIsFetchedOnceAndNotMore) {
  begin(7);
  RecordingConsumer& c = consumer("c");
  connect(c);
  c.inlet.faults = {.drop = 0.2};
  append(stream(), 100'000);
  expect_everything_arrives();
  const auto& counters = c.subscriber().counters();
  EXPECT_GT(counters.bytes_fetched, 0U);
  EXPECT_EQ(counters.bytes_delivered, 100'000U);
  EXPECT_LT(counters.bytes_fetched, 60'000U) << "much more than the fifth that was lost";
  EXPECT_EQ(counters.duplicate_bytes, 0U) << "asked for what was there already";
}

TEST_F(StreamEngineTest, TheLossOfTheVeryLastChunkIsFound) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  Truth& t = stream();
  append(t, 1000);
  run(1s);
  c.inlet.faults = {.drop = 1};
  append(t, 500);
  run(50ms);
  c.inlet.faults = {};
  expect_everything_arrives();
}

TEST_F(StreamEngineTest, ItIsFoundEvenByAConsumerThatIsNeverThroughWithItsQueue) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  Truth& t = stream();
  append(t, 1000);
  run(1s);
  c.inlet.faults = {.drop = 1};
  append(t, 500);
  run(10ms);
  c.inlet.faults = {};
  const auto news = broadcast_beacon({t.info.stream, {1500}, {1500}, false});
  for (const MonoTime until = now + 4s; now < until; step()) {
    for (int i = 0; i < 300; ++i) c.inlet.arrive(news, now);  // more than it takes in a turn
  }
  EXPECT_EQ(c.of(t.info.stream)->cursor(), FileOffset{1500});
}

TEST_F(StreamEngineTest, DamagedMessagesAreRejectedAndTheirBytesFetched) {
  begin(3);
  RecordingConsumer& c = consumer("c");
  connect(c);
  c.inlet.faults = {.corrupt = 0.3};
  append(stream(), 100'000);
  expect_everything_arrives();
  EXPECT_GT(c.subscriber().counters().rejected, 0U);
}

TEST_F(StreamEngineTest, BroadcastsOfAnotherProtocolVersionAreCountedAsThat) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  Truth& t = stream();
  append(t, 1000);
  expect_everything_arrives();
  auto foreign = broadcast_beacon({t.info.stream, {5000}, {5000}, true});
  foreign.header[4] = static_cast<char>(wire::kProtocolMajor + 1);
  c.inlet.arrive(foreign, now);
  expect_everything_arrives();
  run(1s);
  EXPECT_EQ(c.subscriber().counters().refused_versions, 1U);
  EXPECT_EQ(c.subscriber().counters().rejected, 0U);
}

TEST_F(StreamEngineTest, ALateJoinerGetsEverythingFromTheBeginning) {
  begin(1);
  RecordingConsumer& first = consumer("first");
  connect(first);
  Truth& sealed = stream();
  append(sealed, 5000);
  seal(sealed);
  Truth& growing = stream();
  append(growing, 30'000);
  run(5s);
  RecordingConsumer& late = consumer("late");
  connect(late);
  run(20ms);
  append(growing, 30'000);
  expect_everything_arrives();
}

TEST_F(StreamEngineTest, ARestartedConsumerGoesOnWhereItCommitted) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  Truth& t = stream();
  append(t, 10'000);
  run(1s);
  c.commit();
  append(t, 10'000);
  run(1s);
  c.restart();
  append(t, 10'000);
  run(1s);
  connect(c);
  expect_everything_arrives();
  EXPECT_LE(c.subscriber().counters().bytes_delivered, 20'000U) << "what was committed is not sent again";
}

TEST_F(StreamEngineTest, ARestartedConsumerStaysConnectedWhenItsOldLinkIsGivenUp) {
  begin(1);
  RecordingConsumer& killed = consumer("c");
  connect(killed);
  Truth& t = stream();
  append(t, 1000);
  run(100ms);
  RecordingConsumer& restarted = consumer("c");
  connect(restarted);
  killed.link.go_down();
  EXPECT_TRUE(ledger.anybody_connected());
  restarted.link.go_down();
  EXPECT_FALSE(ledger.anybody_connected());
}

TEST_F(StreamEngineTest, ASourceThatKnowsNoStreamsYetLosesNoneOfThem) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  Truth& t = stream();
  append(t, 5'000);
  expect_everything_arrives();
  c.commit();
  save();
  c.inlet.faults = {.drop = 1};
  append(t, 5'000);
  run(100ms);  // it knows that there is more, and asks for it
  start_source();
  publisher->hold();
  connect(c);
  run(10s);
  EXPECT_EQ(lost_bytes(c), 0U) << "that a stream is not known yet does not mean that it is gone";
  EXPECT_FALSE(c.subscriber().overview().settled);
  wire::StreamInfo info = saved.at(t.info.stream);
  publisher->add(info, &t);
  publisher->advance(t.info.stream, {t.bytes.size()});
  c.inlet.faults = {};
  publisher->release();
  expect_everything_arrives();
  EXPECT_EQ(lost_bytes(c), 0U);
}

TEST_F(StreamEngineTest, ANewConsumerIsToldOfOldStreamsAsOldOnes) {
  begin(1);
  publisher->hold();
  RecordingConsumer& c = consumer("c");
  connect(c);
  run(100ms);
  for (int i = 0; i < 600; ++i) stream();  // more than one page
  run(100ms);
  EXPECT_THAT(c.received(), testing::IsEmpty());
  publisher->release();
  expect_everything_arrives();
  EXPECT_EQ(c.received().size(), 600U);
  EXPECT_THAT(c.came_as_news, testing::IsEmpty());
}

TEST_F(StreamEngineTest, AConsumerTellsPageByPageWhatItKnows) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  for (int i = 0; i < 600; ++i) append(stream(), i % 2 == 0 ? 100 : 0);
  expect_everything_arrives();
  c.commit();
  c.restart();
  start_source();
  publisher->hold();
  connect(c);
  std::uint64_t after = 0;
  std::map<StreamId, wire::StreamInfo> told;
  do {
    answers.clear();
    ASSERT_TRUE(publisher->ask(up.back(), after));
    run(10ms);
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_TRUE(answers[0].listing);
    for (const auto& info : answers[0].streams) told[info.stream] = info;
    after = answers[0].streams.back().sequence;
  } while (answers[0].more);
  ASSERT_EQ(told.size(), 600U);
  for (const auto& t : truths) {
    EXPECT_EQ(told.at(t->info.stream).committed.raw, t->bytes.size());
    EXPECT_EQ(told.at(t->info.stream).path, t->info.path);
  }
}

TEST_F(StreamEngineTest, ASourceThatKnowsFewerStreamsThanItDidIsListedAfresh) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  for (int i = 0; i < 5; ++i) stream();
  run(1s);
  start_source();
  sequence = 0;
  connect(c);
  run(100ms);
  c.link.faults = {.drop = 1};
  Truth& t = stream();
  run(100ms);  // the news of it are lost
  c.link.faults = {};
  run(5s);
  EXPECT_NE(c.of(t.info.stream), nullptr);
}

TEST_F(StreamEngineTest, WhatWasAskedOfASourceThatIsReplacedIsAskedOfItsSuccessorAtOnce) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  c.inlet.listening = false;
  connect(c);
  connect(consumer("other"));
  Truth& t = stream();
  run(1s);
  append(t, 1000);
  ASSERT_TRUE(run_until([&] { return c.subscriber().overview().behind_bytes > 0; }));
  run(200ms);
  c.link.faults = {.drop = 1};
  ASSERT_TRUE(run_until([&] { return c.subscriber().counters().fetches == 1; }));
  c.link.faults = {};
  wire::Peer me;
  me.node = publishing.node;
  me.name = publishing.name;
  me.instance = random_id<InstanceId>();
  c.link.greet_anew(*publisher, me, c.peer());
  run(100ms);  // long before the first request would be given up
  EXPECT_EQ(c.of(t.info.stream)->cursor(), FileOffset{1000});
}

TEST_F(StreamEngineTest, WhatIsLearntOfAFileLaterIsTold) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  Truth& t = stream();
  append(t, 10);
  run(1s);
  const wire::FileIdentity file{1, 2, 10, 3};
  publisher->identify(t.info.stream, file);
  run(100ms);
  EXPECT_EQ(c.known().at(t.info.stream).file, file);
  EXPECT_TRUE(publisher->everybody_knows());
}

TEST_F(StreamEngineTest, ARestartedSourceRepeatsWhatItDoesNotRememberAndNobodyNotices) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  Truth& t = stream();
  append(t, 10'000);
  run(1s);
  save();
  append(t, 10'000);
  run(1s);
  restart_source();
  append(t, 5'000);
  run(10ms);
  connect(c);
  expect_everything_arrives();
}

TEST_F(StreamEngineTest, WhatIsGoneIsRecordedAsLostWithItsReasonAndTheRestDelivered) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  Truth& t = stream();
  append(t, 5000);
  run(1s);
  c.inlet.listening = false;
  RecordingConsumer& other = consumer("other");
  connect(other);
  append(t, 5000);
  run(30ms);
  replace(t);
  c.inlet.listening = true;
  append(t, 1000);
  expect_everything_arrives();
  ASSERT_EQ(c.of(t.info.stream)->losses.size(), 1U);
  EXPECT_EQ(c.of(t.info.stream)->losses[0].range, (ByteRange{{5000}, {10'000}}));
  EXPECT_EQ(c.of(t.info.stream)->losses[0].reason, wire::LossReason::kTruncated);
  EXPECT_EQ(lost_bytes(other), 0U);
}

TEST_F(StreamEngineTest, OneLossyConsumerCostsAnotherNothing) {
  begin(5);
  RecordingConsumer& clean = consumer("clean");
  RecordingConsumer& lossy = consumer("lossy");
  connect(clean);
  connect(lossy);
  lossy.inlet.faults = {.drop = 0.5, .duplicate = 0.1, .corrupt = 0.1, .late = 0.2, .latest = 300ms};
  for (int i = 0; i < 5; ++i) append(stream(), 40'000);
  run(2s);
  lossy.inlet.faults = {};
  expect_everything_arrives();
  EXPECT_EQ(clean.subscriber().counters().fetches, 0U);
  EXPECT_GT(lossy.subscriber().counters().fetches, 0U);
}

TEST_F(StreamEngineTest, ABlockedReceiverHoldsUpNobodyAndGetsEverythingLater) {
  begin(1);
  RecordingConsumer& blocked = consumer("blocked", 20'000);
  RecordingConsumer& other = consumer("other");
  connect(blocked);
  connect(other);
  Truth& t = stream();
  append(t, 1000);
  run(100ms);
  blocked.takes = false;
  append(t, 100'000);
  run(5s);
  EXPECT_EQ(incomplete(other), "");
  EXPECT_EQ(blocked.of(t.info.stream)->cursor(), FileOffset{1000});
  EXPECT_GT(blocked.subscriber().counters().dropped_no_room, 0U) << "pending bytes are bounded";
  blocked.take_again();
  expect_everything_arrives();
}

TEST_F(StreamEngineTest, PendingBytesOfAllStreamsAreBoundedTogether) {
  begin(1);
  RecordingConsumer& c = consumer("c", 30'000);
  connect(c);
  std::vector<Truth*> streams;
  for (int i = 0; i < 10; ++i) streams.push_back(&stream());
  run(100ms);
  c.link.faults = {.drop = 1};  // nothing can be repaired for now
  c.inlet.faults = {.drop = 1};
  for (Truth* t : streams) append(*t, 1000);  // the gap
  run(20ms);
  c.inlet.faults = {};
  for (Truth* t : streams) append(*t, 20'000);
  run(1s);
  EXPECT_GT(c.subscriber().counters().dropped_no_room, 100U);
  c.link.faults = {};
  expect_everything_arrives();
}

TEST_F(StreamEngineTest, WhatHasNoRoomUntilItIsListedWaitsForThat) {
  begin(1);
  RecordingConsumer& c = consumer("c", 30'000);
  connect(c);
  run(100ms);
  c.link.faults = {.delay = 40ms};
  for (int i = 0; i < 5; ++i) append(stream(), 20'000);
  run(10ms);
  EXPECT_TRUE(c.subscriber().holds_back());
  expect_everything_arrives();
  EXPECT_EQ(c.subscriber().counters().dropped_no_room, 0U);
  EXPECT_EQ(c.subscriber().counters().bytes_fetched, 0U);
}

TEST_F(StreamEngineTest, ListingsThatDoNotComeAreNotWaitedForLong) {
  begin(1);
  RecordingConsumer& c = consumer("c", 30'000);
  connect(c);
  Truth& known = stream();
  run(100ms);
  c.link.faults = {.drop = 1};
  for (int i = 0; i < 5; ++i) append(stream(), 20'000);
  append(known, 5000);
  run(80ms);
  EXPECT_EQ(c.subscriber().counters().dropped_no_room, 0U);
  run(80ms);
  EXPECT_GT(c.subscriber().counters().dropped_no_room, 0U);
  EXPECT_EQ(c.of(known.info.stream)->cursor(), FileOffset{5000});
  c.link.faults = {};
  expect_everything_arrives();
}

TEST_F(StreamEngineTest, ChunksOfStreamsThatAreNotWantedAreNotKept) {
  begin(1);
  SubscriberConfig config;
  config.max_pending_bytes = 30'000;
  config.interest.topics = {"wanted"};
  RecordingConsumer& c = consumer("c", config);  // and its subscription lets everything through
  connect(c);
  Truth& wanted = stream("wanted");
  Truth& other = stream("other");
  run(100ms);
  for (int i = 0; i < 3; ++i) {
    append(other, 50'000);
    run(1s);
  }
  c.inlet.faults = {.drop = 1};
  append(wanted, 1000);
  run(10ms);
  c.inlet.faults = {};
  append(wanted, 20'000);  // these wait for what was lost
  run(5s);
  EXPECT_EQ(c.subscriber().counters().dropped_no_room, 0U);
  EXPECT_EQ(c.subscriber().counters().bytes_fetched, 1000U);
  EXPECT_EQ(c.of(other.info.stream), nullptr);
  EXPECT_EQ(c.of(wanted.info.stream)->cursor(), FileOffset{21'000});
}

TEST_F(StreamEngineTest, AnEmptyStreamIsKnownAndSealed) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  seal(stream());
  Truth& growing = stream();
  append(growing, 10);
  expect_everything_arrives();
}

TEST_F(StreamEngineTest, AReadErrorThatPassesOnlyDelays) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  Truth& t = stream();
  append(t, 1000);
  run(100ms);
  t.unreadable = true;
  append(t, 1000);
  run(3s);
  t.unreadable = false;
  expect_everything_arrives();
}

TEST_F(StreamEngineTest, AnUnreadableStreamDoesNotDelayAnother) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  Truth& bad = stream();
  Truth& good = stream();
  run(100ms);
  bad.unreadable = true;
  append(bad, 100);
  run(20ms);
  append(good, 100);
  run(100ms);
  EXPECT_EQ(c.of(good.info.stream)->cursor(), FileOffset{100});
}

TEST_F(StreamEngineTest, AHeadFromBeforeTheSealThatArrivesLateDoesNotOpenTheStreamAgain) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  Truth& t = stream();
  append(t, 1000);
  run(1s);
  replace(t);
  append(t, 1000);  // the head moves, but what it promises is cut off before it is read
  const wire::Head before_the_seal{t.info.stream, {1000}, {2000}, false};
  expect_everything_arrives();
  c.commit();
  c.inlet.arrive(broadcast_beacon(before_the_seal), now);
  run(15s);
  EXPECT_EQ(incomplete(c), "");
  expect_true_and_exact(c);
}

TEST_F(StreamEngineTest, ACommitBeyondWhatARestartedSourceRemembersCountsForAllThatItHas) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  Truth& t = stream();
  append(t, 1000);
  run(1s);
  save();
  append(t, 1000);
  run(1s);
  c.commit();
  run(20ms);
  ledger = {};  // that commit is forgotten
  replace(t);
  t.marked = {1000};
  restart_source();  // and so are the last 1000 bytes, which can not be read again
  connect(c);
  append(t, 1);
  run(5s);
  ASSERT_EQ(t.final_length, FileOffset{1000});
  EXPECT_EQ(ledger.position("c", t.info.stream), FileOffset{1000});
}

TEST_F(StreamEngineTest, AnsweringNothingToManyFetchesDoesNotUseUpTheRoomForOthers) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  // Fetches whose answers vanish, for gaps that close by themselves, as the broadcast was only late.
  std::vector<Truth*> streams;
  for (int i = 0; i < 40; ++i) streams.push_back(&stream());
  run(100ms);
  c.link.faults = {.drop = 1};
  for (Truth* t : streams) {
    c.inlet.faults = {.late = 1, .latest = 1s};
    append(*t, 600'000);
    run(500ms);
  }
  c.inlet.faults = {};
  run(2s);
  c.link.faults = {};
  c.inlet.faults = {.drop = 0.5};
  append(stream(), 100'000);
  run(200ms);
  c.inlet.faults = {};
  expect_everything_arrives();
}

TEST_F(StreamEngineTest, ManyHistoriesAreFetchedInTurn) {
  begin(1);
  SubscriberConfig config;
  config.repair.window_bytes = 2000;
  config.max_fetch_bytes = 4 * config.repair.window_bytes;
  RecordingConsumer& c = consumer("c", config);
  c.inlet.listening = false;
  connect(consumer("other"));
  for (int i = 0; i < 12; ++i) append(stream(), 100'000);
  run(2s);
  connect(c);
  const auto cursor = [&](const auto& t) {
    const Received* r = c.of(t->info.stream);
    return r == nullptr ? 0 : r->cursor().raw;
  };
  const auto half = [&](const auto& t) { return cursor(t) >= 50'000; };
  ASSERT_TRUE(run_until([&] { return std::any_of(truths.begin(), truths.end(), half); }));
  for (const auto& t : truths) EXPECT_GE(cursor(t), 40'000U) << "stream " << t->info.sequence;
  expect_everything_arrives();
}

TEST_F(StreamEngineTest, ASmallGapDoesNotWaitForWholeHistories) {
  begin(1);
  SubscriberConfig config;
  config.repair.window_bytes = 2000;
  config.max_fetch_bytes = 4 * config.repair.window_bytes;
  RecordingConsumer& c = consumer("c", config);
  c.inlet.listening = false;
  connect(consumer("other"));
  for (int i = 0; i < 40; ++i) append(stream(), 100'000);
  Truth& small = stream();
  append(small, 100);
  run(2s);
  connect(c);
  const auto there = [&] {
    const Received* r = c.of(small.info.stream);
    return r != nullptr && r->cursor().raw == 100;
  };
  ASSERT_TRUE(run_until(there));
  EXPECT_LE(c.subscriber().counters().bytes_delivered, 2 * config.max_fetch_bytes);
  expect_everything_arrives();
}

TEST_F(StreamEngineTest, AConsumerThatHasSeenItAllDoesNotAskForTheListAgainAndAgain) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  append(stream(), 100);
  Truth& last = stream();
  seal(last);
  expect_everything_arrives();
  c.commit();
  run(20ms);
  publisher->remove(last.info.stream);
  last.removed = true;
  RecordingConsumer& late = consumer("late");
  connect(late);
  run(3s);
  const std::size_t before = late.link.sent_to_source();
  run(10s);
  EXPECT_LE(late.link.sent_to_source() - before, 1U);
}

TEST_F(StreamEngineTest, ACommitThatCouldNotBeSentIsMadeGood) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  Truth& t = stream();
  append(t, 1000);
  run(1s);
  c.link.faults = {.refuse = 1};  // its queue is full for a moment
  c.commit();
  c.link.faults = {};
  run(10s);
  c.commit();  // nothing moved since
  run(10s);
  EXPECT_EQ(ledger.position("c", t.info.stream), FileOffset{1000});
}

TEST_F(StreamEngineTest, NewsThatIsLostOnTheWayIsFoundByTheNextNews) {
  begin(1);
  RecordingConsumer& c = consumer("c");
  connect(c);
  run(1100ms);
  c.link.faults = {.drop = 1};  // the connection breaks and heals before anybody takes it for dead
  Truth& missed = stream();
  append(missed, 100);
  run(60ms);
  c.link.faults = {};
  append(stream(), 100);
  expect_everything_arrives();
}

// ---- everything at once

class LossyEngineTest : public StreamEngineTest {
 protected:
  Faults bad_broadcast() {
    return {.drop = chance->with(0.5) ? 0.05 : 0.4,
            .duplicate = 0.05,
            .corrupt = 0.05,
            .late = 0.1,
            .latest = chance->with(0.5) ? Duration(100ms) : Duration(2s)};
  }
  Faults bad_control() { return {.drop = silent_control_loss, .refuse = 0.05, .delay = 30ms}; }

  void something_happens() {
    const double dice = std::uniform_real_distribution<double>(0, 1)(dice_);
    RecordingConsumer& c = *chance->one_of(consumers);
    Truth* t = truths.empty() ? nullptr : chance->one_of(truths).get();
    const bool alive = t != nullptr && !t->final_length && !t->replaced;
    if (dice < 0.60) {
      if (alive) append(*t, chance->between(std::size_t{1}, std::size_t{6000}));
    } else if (dice < 0.68) {
      if (truths.size() < 12) stream();
    } else if (dice < 0.71) {
      if (alive) seal(*t);
    } else if (dice < 0.74) {
      if (alive) replace(*t), append(*t, 1);
    } else if (dice < 0.77) {
      if (alive) t->unreadable = !t->unreadable;
    } else if (dice < 0.82) {
      c.link.go_down();
    } else if (dice < 0.88) {
      connect(c);
    } else if (dice < 0.90) {
      c.restart();
    } else if (dice < 0.92) {
      restart_source();
    } else if (dice < 0.94) {
      c.takes = false;
    } else if (dice < 0.96) {
      c.take_again();
    } else if (dice < 0.98) {
      c.commit();
    } else {
      save();
      sweep();
    }
  }

  void play(std::uint64_t seed) {
    dice_.seed(seed);
    begin(seed);
    for (int i = 0; i < 3; ++i) {
      RecordingConsumer& c = consumer("c" + std::to_string(i), i == 0 ? 10'000 : 1'000'000);
      c.inlet.faults = bad_broadcast();
      c.link.faults = bad_control();
      connect(c);
    }
    for (int i = 0; i < 150; ++i) {
      something_happens();
      run(chance->between(Duration(5ms), Duration(60ms)));
    }
    // From now on all goes well.
    for (const auto& c : consumers) {
      c->inlet.faults = {};
      c->link.faults = {};
      if (!c->takes) c->take_again();
      if (!c->link.up()) connect(*c);
    }
    for (const auto& t : truths) {
      if (t->unreadable) t->unreadable = false;
      if (t->replaced && !t->gone) on_broken(t->info.stream, {});
    }
    expect_everything_arrives();
    end();
  }

  double silent_control_loss = 0;

 private:
  std::mt19937_64 dice_;
};

TEST_F(LossyEngineTest, DeliversEveryStreamExactlyOrRecordsALoss) {
  for (const std::uint64_t seed : test::seeds(200)) {
    SCOPED_TRACE(test::replay(seed));
    play(seed);
    if (HasFailure()) return;
  }
}

TEST_F(LossyEngineTest, DoesSoToWhenControlMessagesVanish) {
  silent_control_loss = 0.03;
  for (const std::uint64_t seed : test::seeds(200)) {
    SCOPED_TRACE(test::replay(seed));
    play(seed);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace fantail
