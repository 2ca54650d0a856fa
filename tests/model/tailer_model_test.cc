#include <gmock/gmock.h>

#include <filesystem>
#include <map>
#include <memory>
#include <optional>

#include "common/base/log.h"
#include "common/storage/state_directory.h"
#include "common/stream/stream_publisher.h"
#include "producer/discovery.h"
#include "producer/registry.h"
#include "producer/tailer.h"
#include "tests/support/recording_consumer.h"
#include "tests/support/scratch_directory.h"
#include "tests/support/seeded.h"

/// Random things done to real files, against a plain model of what was in them. After each step the consumer has, as
/// one stream, exactly the bytes of every file that there was, however it was renamed, truncated, replaced or deleted.
namespace fantail {
namespace {

using test::Chance;
using test::Received;
using test::RecordingConsumer;
using test::ScratchDirectory;

constexpr Duration kStep = 20ms;

/// All the bytes that one file had between its creation, truncation or rewriting and the next.
struct Incarnation {
  std::string bytes;
  bool found = false;    ///< by the producer: it ran while the file had a name that the pattern takes
  std::size_t seen = 0;  ///< bytes that it could read then: these must arrive
  MonoTime grown{};
};

class TailerModelTest : public testing::Test {
 protected:
  TailerModelTest() { log::set_up(log::Level::kOff); }
  ~TailerModelTest() override {
    stop();
    log::set_up(log::Level::kInfo);
  }

  void begin(std::uint64_t seed, const std::string& pattern) {
    chance = std::make_unique<Chance>(seed);
    files = std::make_unique<ScratchDirectory>();
    state = std::make_unique<ScratchDirectory>();
    pattern_ = pattern;
    operations.clear();
    incarnations.clear();
    at.clear();
    rotations = 0;
    broadcast = std::make_unique<test::MemoryBroadcast>();
    control = std::make_unique<test::SourceControl>();
    consumer = std::make_unique<RecordingConsumer>("c", *chance);
    broadcast->inlets.push_back(&consumer->inlet);
    control->links.push_back(&consumer->link);
    start();
  }
  void end() {
    stop();
    consumer.reset();
  }

  /// Rotated files are taken by the pattern, or only known because they are where they were.
  static std::string pattern_for(std::uint64_t seed) { return seed % 2 == 0 ? "*.log" : "*.log*"; }

  // ---- the producer

  void start() {
    auto directory = StateDirectory::open(state->path());
    ASSERT_TRUE(directory) << directory.error().context;
    std::string set_aside;
    auto registry = Registry::open(*directory, set_aside);
    ASSERT_TRUE(registry) << registry.error().context;
    ASSERT_EQ(set_aside, "");
    std::vector<Selection> selections;
    selections.push_back({*Glob::parse((files->path() / pattern_).string()), "log"});
    auto discovery = Discovery::open(std::move(selections), {}, false);
    ASSERT_TRUE(discovery) << discovery.error().context;
    producer = std::make_unique<Producer>(std::move(*directory), std::move(*registry), std::move(*discovery));
    PublisherConfig config;
    config.node = producer->registry.node();
    config.instance = random_id<InstanceId>();
    config.name = "node";
    config.broadcast.chunk_bytes = 4096;
    producer->tailer =
        std::make_unique<Tailer>(TailerConfig{}, producer->discovery, producer->registry, producer->ledger);
    producer->publisher = std::make_unique<StreamPublisher>(config, *broadcast, *control, producer->pool,
                                                            producer->ledger, *producer->tailer);
    const auto started = producer->tailer->start(*producer->publisher, now);
    ASSERT_TRUE(started) << started.error().context;
    connect();
  }
  void connect() {
    wire::Peer me;
    me.node = producer->registry.node();
    me.name = "node";
    me.instance = random_id<InstanceId>();
    consumer->link.come_up(*producer->publisher, me, consumer->subscriber(), consumer->peer());
  }
  /// Like kill -9: what was not saved is forgotten.
  void stop() {
    if (consumer) consumer->link.go_down();
    producer.reset();
  }
  void run(Duration span) {
    for (const MonoTime until = now + span; now < until;) {
      now += kStep;
      broadcast->now = now;
      producer->tailer->turn(now);
      consumer->link.pass(now);
      producer->publisher->turn(now);
      consumer->turn(now);
    }
  }
  /// Until nothing can be under way any more; all that is there now was seen then.
  void settle(Duration span = 2500ms) {
    run(span);
    consumer->commit();
    run(100ms);
    for (const auto& [name, incarnation] : at) {
      incarnation->found = incarnation->found || wanted(name);
      if (incarnation->found) incarnation->seen = incarnation->bytes.size();
    }
  }

  // ---- files, and the same in the model

  std::string path(const std::string& name) { return *files / name; }
  std::size_t number(std::size_t least, std::size_t most) { return chance->between(least, most); }
  std::string some_text() { return chance->text(chance->with(0.2) ? number(5'000, 20'000) : number(1, 300)); }
  /// Whether the pattern takes a new file of this name.
  bool wanted(const std::string& name) const { return pattern_ == "*.log*" || name.ends_with(".log"); }
  void incarnate(const std::string& name, std::string bytes) {
    incarnations.push_back(std::make_unique<Incarnation>(Incarnation{std::move(bytes), false, 0, now}));
    at[name] = incarnations.back().get();
  }
  void note(const std::string& operation) { operations.push_back(operation); }

  void append(const std::string& name) {
    const std::string text = some_text();
    note("append " + std::to_string(text.size()) + " to " + name);
    test::append(path(name), text);
    if (!at.contains(name)) incarnate(name, "");
    at[name]->bytes += text;
    at[name]->grown = now;
  }
  void rename(const std::string& name) {
    const std::string to = name.substr(0, name.find(".log")) + ".log." + std::to_string(++rotations);
    note("rename " + name + " to " + to);
    std::filesystem::rename(path(name), path(to));
    at[to] = at.at(name);
    at.erase(name);
  }
  void shorten(const std::string& name) {
    const std::size_t size = at.at(name)->bytes.size() / 2;
    note("truncate " + name + " to " + std::to_string(size));
    std::filesystem::resize_file(path(name), size);
    incarnate(name, at.at(name)->bytes.substr(0, size));
  }
  void truncate_and_refill(const std::string& name) {
    const std::string text = some_text();
    note("truncate " + name + " and write " + std::to_string(text.size()));
    test::rewrite(path(name), text);
    incarnate(name, text);
  }
  void rewrite_in_place(const std::string& name) {
    std::string text = chance->text(at.at(name)->bytes.size());
    if (chance->with(0.5)) text += some_text();
    note("overwrite " + name + " in place with " + std::to_string(text.size()));
    test::write_at(path(name), 0, text);
    incarnate(name, text);
  }
  void replace(const std::string& name) {
    const std::string text = some_text();
    note("replace " + name + " by a file of " + std::to_string(text.size()));
    test::rewrite(path("temporary"), text);
    std::filesystem::rename(path("temporary"), path(name));
    incarnate(name, text);
  }
  void remove(const std::string& name) {
    note("delete " + name);
    std::filesystem::remove(path(name));
    at.erase(name);
  }
  /// What is deleted can still be read if it was open.
  void append_and_delete(const std::string& name) {
    Incarnation& incarnation = *at.at(name);
    const bool open = incarnation.found && now - incarnation.grown < 8s;
    append(name);
    if (open) incarnation.seen = incarnation.bytes.size();
    remove(name);
  }

  void something_happens_to_files() {
    const std::vector<std::string> names = {"a.log", "b.log", "c.log"};
    std::string name = chance->one_of(names);
    if (!at.empty() && chance->with(0.3)) {  // also to those that were rotated
      auto it = at.begin();
      std::advance(it, static_cast<std::ptrdiff_t>(chance->between(std::size_t{0}, at.size() - 1)));
      name = it->first;
    }
    if (!at.contains(name)) return append(name);
    switch (number(0, 11)) {
      case 0:
      case 1:
      case 2: return append(name);
      case 3: rename(name); return append(name);
      case 4: return rename(name);
      case 5: return knows_all_it_read ? shorten(name) : append(name);
      case 6: return truncate_and_refill(name);
      case 7: return rewrite_in_place(name);
      case 8: return replace(name);
      case 9: return remove(name);
      case 10: remove(name); return append(name);
      case 11: return producer ? append_and_delete(name) : append(name);
    }
  }

  // ---- what must be so

  std::string story() const {
    std::string out = "pattern " + pattern_ + "; operations:";
    for (const auto& operation : operations) out += "\n  " + operation;
    return out;
  }
  std::string received() const {
    std::string out = "\nreceived:";
    for (const auto& [id, r] : consumer->received()) {
      out += "\n  " + std::to_string(r.info.sequence) + " " + r.info.path + ", " + std::to_string(r.bytes.size()) +
             " bytes: " + r.bytes.substr(0, 20);
    }
    return out;
  }
  void expect_all_that_there_was() {
    ASSERT_THAT(consumer->wrong, testing::IsEmpty());
    for (const auto& incarnation : incarnations) {
      if (incarnation->seen == 0) continue;
      std::size_t whole = 0;
      for (const auto& [id, r] : consumer->received()) {
        const bool enough = r.bytes.size() >= incarnation->seen;
        whole +=
            enough && incarnation->bytes.starts_with(r.bytes) && r.bytes.size() <= incarnation->bytes.size() ? 1 : 0;
      }
      ASSERT_GE(whole, 1U) << "no stream has these " << incarnation->bytes.size() << " bytes, " << incarnation->seen
                           << " of which were there to be read: " << incarnation->bytes.substr(0, 40) << received();
    }
    for (const auto& [id, r] : consumer->received()) {
      ASSERT_THAT(r.losses, testing::IsEmpty()) << r.info.path;
      const bool real = std::any_of(incarnations.begin(), incarnations.end(),
                                    [&](const auto& i) { return i->bytes.starts_with(r.bytes); });
      ASSERT_TRUE(real) << "a stream of " << r.info.path << " has bytes that no file had: " << r.bytes.size()
                        << " bytes, " << r.bytes.substr(0, 40);
    }
    std::map<std::string, int> times;
    for (const auto& [id, r] : consumer->received()) {
      if (r.bytes.empty()) continue;
      ASSERT_EQ(++times[r.bytes], 1) << "the same content twice, " << r.info.path;
    }
  }

  struct Producer {
    StateDirectory directory;
    Registry registry;
    Discovery discovery;
    CommitLedger ledger;
    FramePool pool{4096, 8};
    std::unique_ptr<Tailer> tailer;
    std::unique_ptr<StreamPublisher> publisher;
    Producer(StateDirectory d, Registry r, Discovery f)
        : directory(std::move(d)), registry(std::move(r)), discovery(std::move(f)) {}
  };

  MonoTime now = MonoTime{} + 1h;
  std::unique_ptr<Chance> chance;
  std::unique_ptr<ScratchDirectory> files;
  std::unique_ptr<ScratchDirectory> state;
  std::unique_ptr<test::MemoryBroadcast> broadcast;
  std::unique_ptr<test::SourceControl> control;
  std::unique_ptr<RecordingConsumer> consumer;
  std::unique_ptr<Producer> producer;
  std::vector<std::unique_ptr<Incarnation>> incarnations;
  std::map<std::string, Incarnation*> at;  ///< by name, what is there now
  std::vector<std::string> operations;
  bool knows_all_it_read = true;  ///< else a file must not be cut within what a killed producer read of it
  int rotations = 0;
  std::string pattern_;
};

TEST_F(TailerModelTest, WhatWasHeldAfterItsFileWasDeletedIsRecordedAsLostWhenTheProducerDies) {
  begin(1, "*.log");
  consumer->inlet.faults = {.drop = 1};  // it is there, and gets nothing
  consumer->link.faults = {.drop = 1};
  append("a.log");
  settle();
  remove("a.log");
  run(10s);  // sent, sealed, held for the consumer
  producer->tailer->save_now();
  stop();
  consumer->inlet.faults = consumer->link.faults = {};
  start();
  run(30s);
  ASSERT_EQ(consumer->received().size(), 1U);
  const Received& r = consumer->received().begin()->second;
  ASSERT_EQ(r.losses.size(), 1U);
  EXPECT_EQ(r.losses[0].reason, wire::LossReason::kDeleted);
  EXPECT_EQ(r.cursor().raw, incarnations[0]->bytes.size());
}

TEST_F(TailerModelTest, AHeldFileIsReadAfterItWasDeleted) {
  begin(1, "*.log");
  append("a.log");
  settle();
  consumer->link.go_down();
  consumer->inlet.listening = false;
  append("a.log");
  run(100ms);
  remove("a.log");
  run(60s);
  consumer->inlet.listening = true;
  connect();
  run(2s);
  expect_all_that_there_was();
  EXPECT_EQ(consumer->received().begin()->second.bytes, incarnations[0]->bytes);
}

TEST_F(TailerModelTest, AFileThatIsCutExactlyToWhatWasReadGoesOnGrowing) {
  begin(1, "*.log");
  append("a.log");
  settle();
  const std::string read = incarnations[0]->bytes;
  consumer->inlet.listening = false;  // nobody wants it, so its bytes wait
  consumer->link.go_down();
  append("a.log");
  run(100ms);
  std::filesystem::resize_file(path("a.log"), read.size());
  run(100ms);
  consumer->inlet.listening = true;
  connect();
  run(3s);
  test::append(path("a.log"), "x");
  run(3s);
  EXPECT_EQ(consumer->received().begin()->second.bytes, read + "x");
}

TEST_F(TailerModelTest, AFileThatIsCutWithinWhatAKilledProducerReadIsAnotherStream) {
  GTEST_SKIP() << "known: positions are saved once a second, and an older one still fits the file";
  begin(1, "*.log");
  append("a.log");
  settle();
  const std::string saved = incarnations[0]->bytes;
  append("a.log");
  run(100ms);
  stop();
  std::filesystem::resize_file(path("a.log"), saved.size() + 1);
  test::append(path("a.log"), chance->text(1000));
  start();
  settle();
  EXPECT_EQ(consumer->received().size(), 2U);
}

TEST_F(TailerModelTest, EveryIncarnationOfEveryFileArrivesAsOneStream) {
  for (const std::uint64_t seed : test::seeds(20)) {
    begin(seed, pattern_for(seed));
    SCOPED_TRACE(test::replay(seed));
    for (int i = 0; i < 40; ++i) {
      something_happens_to_files();
      settle();
      if (chance->with(0.05)) {
        note("15 s pass");
        settle(15s);
      }
      expect_all_that_there_was();
      if (HasFatalFailure()) FAIL() << story();
    }
    end();
  }
}

TEST_F(TailerModelTest, ARestartLosesNothingThatIsStillOnDisk) {
  for (const std::uint64_t seed : test::seeds(20)) {
    begin(seed, pattern_for(seed));
    SCOPED_TRACE(test::replay(seed));
    for (int i = 0; i < 30; ++i) {
      something_happens_to_files();
      settle();
      if (chance->with(0.3)) {
        note("stop");
        producer->tailer->save_now();
        stop();
        for (std::size_t k = number(0, 3); k > 0; --k) something_happens_to_files();
        note("start");
        start();
        settle();
      }
      expect_all_that_there_was();
      if (HasFatalFailure()) FAIL() << story();
    }
    end();
  }
}

TEST_F(TailerModelTest, KilledAtAnyMomentItNeverMixesWhatWasWithWhatIs) {
  for (const std::uint64_t seed : test::seeds(20)) {
    begin(seed, pattern_for(seed));
    SCOPED_TRACE(test::replay(seed));
    for (int i = 0; i < 30; ++i) {
      something_happens_to_files();
      if (chance->with(0.3)) {
        const Duration alive = chance->between(Duration(kStep), Duration(1500ms));
        run(alive);
        note("killed after " + std::to_string(to_milliseconds(alive)) + " ms");
        stop();
        knows_all_it_read = false;
        for (std::size_t k = number(0, 3); k > 0; --k) something_happens_to_files();
        knows_all_it_read = true;
        note("start");
        start();
      }
      settle();
      expect_all_that_there_was();
      if (HasFatalFailure()) FAIL() << story();
    }
    end();
  }
}

}  // namespace
}  // namespace fantail
