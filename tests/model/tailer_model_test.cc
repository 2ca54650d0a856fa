#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "common/base/log.h"
#include "common/storage/database.h"
#include "common/storage/state_directory.h"
#include "common/stream/stream_publisher.h"
#include "producer/discovery.h"
#include "producer/registry.h"
#include "producer/tailer.h"
#include "tests/support/packed.h"
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
  bool alike = false;   ///< begins like another file
  bool copied = false;  ///< nobody writes to what copytruncate left, or to an archive
};

class TailerModelTest : public testing::Test {
 protected:
  TailerModelTest() { log::set_up(log::Level::kOff); }
  ~TailerModelTest() override {
    stop();
    log::set_up(log::Level::kInfo);
  }

  /// `before_the_start`: what there is when the producer starts for the first time.
  void begin(std::uint64_t seed, const std::string& pattern, const std::vector<std::string>& before_the_start = {}) {
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
    for (const std::string& name : before_the_start) append(name);
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
    Registry::Opening opening;
    auto registry = Registry::open(*directory, opening);
    ASSERT_TRUE(registry) << registry.error().context;
    ASSERT_EQ(opening.lost, registry_lost);
    ASSERT_FALSE(opening.lost && opening.new_node);
    registry_lost = false;
    std::vector<Selection> selections;
    selections.push_back({*Glob::parse((files->path() / pattern_).string()), "log", from_end});
    auto discovery = Discovery::open(std::move(selections), {}, polling);
    ASSERT_TRUE(discovery) << discovery.error().context;
    producer = std::make_unique<Producer>(std::move(*directory), std::move(*registry), std::move(*discovery));
    PublisherConfig config;
    config.node = producer->registry.node();
    config.instance = random_id<InstanceId>();
    config.name = "node";
    config.broadcast.chunk_bytes = 4096;
    producer->tailer = std::make_unique<Tailer>(tailing, producer->discovery, producer->registry, producer->ledger);
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
  /// While it is stopped.
  void lose_registry() {
    note("the registry is lost");
    registry_lost = true;
    const std::string file = *state / "registry.db";
    if (chance->with(0.5)) std::filesystem::remove(*state / "registry.db-wal");
    switch (number(0, 2)) {
      case 0: std::filesystem::remove(file); break;
      case 1: std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2); break;
      case 2: test::rewrite(file, chance->text(5'000)); break;
    }
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
  /// Long enough not to be the same twice by chance.
  std::string some_text() { return chance->text(chance->with(0.2) ? number(5'000, 20'000) : number(20, 300)); }
  /// Whether the pattern takes a new file of this name.
  bool wanted(const std::string& name) const { return pattern_ == "*.log*" || name.ends_with(".log"); }
  Incarnation* incarnation_of(std::string bytes) {
    incarnations.push_back(std::make_unique<Incarnation>(Incarnation{std::move(bytes), false, 0, now}));
    return incarnations.back().get();
  }
  /// Another file has that name now.
  void incarnate(const std::string& name, std::string bytes) { at[name] = incarnation_of(std::move(bytes)); }
  /// The file has other bytes now, under all of its names.
  void reincarnate(const std::string& name, std::string bytes) {
    const Incarnation* const before = at.at(name);
    Incarnation* const after = incarnation_of(std::move(bytes));
    for (auto& [other, incarnation] : at) {
      if (incarnation == before) incarnation = after;
    }
  }
  /// The same, from `kept` on. Of bytes that nobody can have read nobody knows that they were others.
  void change_from(const std::string& name, std::size_t kept, std::string bytes) {
    if (producer || kept < at.at(name)->seen) return reincarnate(name, std::move(bytes));
    at.at(name)->bytes = std::move(bytes);
  }
  std::size_t names_of(const std::string& name) const {
    return static_cast<std::size_t>(
        std::count_if(at.begin(), at.end(), [&](const auto& entry) { return entry.second == at.at(name); }));
  }
  std::string some_name() {
    auto it = at.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(number(0, at.size() - 1)));
    return it->first;
  }
  std::string rotated_name(const std::string& name) {
    return name.substr(0, name.find(".log")) + ".log." + std::to_string(++rotations);
  }
  void note(const std::string& operation) { operations.push_back(operation); }

  void append(const std::string& name) { append(name, some_text()); }
  void append(const std::string& name, const std::string& text) {
    note("append " + std::to_string(text.size()) + " to " + name);
    test::append(path(name), text);
    if (!at.contains(name)) incarnate(name, "");
    at[name]->bytes += text;
    at[name]->grown = now;
  }
  void rename(const std::string& name) {
    const std::string to = rotated_name(name);
    note("rename " + name + " to " + to);
    std::filesystem::rename(path(name), path(to));
    at[to] = at.at(name);
    at.erase(name);
  }
  void shorten(const std::string& name) {
    const std::size_t size = at.at(name)->bytes.size() / 2;
    note("truncate " + name + " to " + std::to_string(size));
    std::filesystem::resize_file(path(name), size);
    change_from(name, size, at.at(name)->bytes.substr(0, size));
  }
  void truncate_and_refill(const std::string& name) {
    const std::string text = some_text();
    note("truncate " + name + " and write " + std::to_string(text.size()));
    test::rewrite(path(name), text);
    reincarnate(name, text);
  }
  /// As logrotate does with copytruncate.
  void copy_and_truncate(const std::string& name) {
    const std::string to = rotated_name(name);
    const std::string text = some_text();
    note("copy " + name + " to " + to + ", truncate it and write " + std::to_string(text.size()));
    std::filesystem::copy_file(path(name), path(to));
    Incarnation* const copied = at.at(name);
    test::rewrite(path(name), text);
    reincarnate(name, text);
    at[to] = copied;  // goes on there
    copied->copied = true;
  }
  /// As `mv` does from one file system to another, where the file has another inode then.
  void move_by_copying(const std::string& name) {
    const std::string to = rotated_name(name);
    note("copy " + name + " to " + to + " and delete it");
    std::filesystem::copy_file(path(name), path(to));
    std::filesystem::remove(path(name));
    at[to] = at.at(name);
    at.erase(name);
  }
  /// As logrotate does without delaycompress: renamed and compressed, and what was compressed is deleted.
  void compress(const std::string& name) {
    compress(name, chance->with(0.5) ? ArchiveFormat::kGzip : ArchiveFormat::kZstd);
  }
  std::string compress(const std::string& name, ArchiveFormat format) {
    const std::string renamed = rotated_name(name);
    const std::string to = renamed + (format == ArchiveFormat::kGzip ? ".gz" : ".zst");
    note("rename " + name + " to " + renamed + " and compress it");
    std::filesystem::rename(path(name), path(renamed));
    test::rewrite(path(to), test::compress(format, at.at(name)->bytes));
    std::filesystem::remove(path(renamed));
    at[to] = at.at(name);
    at.at(to)->copied = true;
    at.erase(name);
    return to;
  }
  /// A copy of a file that stays.
  void copy(const std::string& name) {
    const std::string to = name.substr(0, name.find(".log")) + ".log~" + std::to_string(++rotations);
    note("copy " + name + " to " + to);
    std::filesystem::copy_file(path(name), path(to));
  }
  void rewrite_in_place(const std::string& name) {
    std::string text = chance->text(at.at(name)->bytes.size());
    if (chance->with(0.5)) text += some_text();
    note("overwrite " + name + " in place with " + std::to_string(text.size()));
    test::write_at(path(name), 0, text);
    reincarnate(name, text);
  }
  /// Its beginning stays what it was.
  void rewrite_second_half(const std::string& name) {
    const std::string& bytes = at.at(name)->bytes;
    const std::string text = chance->text(bytes.size() - bytes.size() / 2 + number(0, 100));
    note("overwrite the second half of " + name + " with " + std::to_string(text.size()));
    test::write_at(path(name), bytes.size() / 2, text);
    change_from(name, bytes.size() / 2, bytes.substr(0, bytes.size() / 2) + text);
  }
  void replace(const std::string& name) {
    const std::string text = some_text();
    note("replace " + name + " by a file of " + std::to_string(text.size()));
    test::rewrite(path("temporary"), text);
    std::filesystem::rename(path("temporary"), path(name));
    incarnate(name, text);
  }
  /// Over a file that may be tailed too.
  void move_over(const std::string& name, const std::string& to) {
    if (at.at(name) == at.at(to)) return;  // rename() leaves two names of one file as they are
    note("rename " + name + " over " + to);
    std::filesystem::rename(path(name), path(to));
    at[to] = at.at(name);
    at.erase(name);
  }
  void link(const std::string& name) {
    const std::string to = rotated_name(name);
    note("link " + name + " as " + to);
    std::filesystem::create_hard_link(path(name), path(to));
    at[to] = at.at(name);
  }
  /// A new file that begins like another, in place of what has the name.
  void begin_alike(const std::string& name, const std::string& other) {
    // Not with all that was read of it: then it would be its continuation.
    const Incarnation& like = *at.at(other);
    const std::size_t most = like.found ? std::max<std::size_t>(like.seen / 2, 1) : 6000;
    const std::string text = like.bytes.substr(0, number(1, most)) + chance->text(number(64, 300));
    note("make " + name + " with " + std::to_string(text.size()) + " bytes, beginning like " + other);
    test::rewrite(path("temporary"), text);
    std::filesystem::rename(path("temporary"), path(name));
    incarnate(name, text);
    at[name]->alike = true;
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
    if (!at.empty() && chance->with(0.3)) name = some_name();  // also to those that were rotated
    if (!at.contains(name)) return append(name);
    const Incarnation& file = *at.at(name);
    if (file.copied) return chance->with(0.7) ? rename(name) : remove(name);
    // What is the beginning of another file must not come to be where that file was: nothing could tell the two apart.
    const bool may_be_cut = knows_all_it_read && !file.alike;
    switch (number(0, 19)) {
      case 0:
      case 1:
      case 2: return append(name);
      case 3: rename(name); return append(name);
      case 4: return rename(name);
      case 5: return may_be_cut ? shorten(name) : append(name);
      case 6: return truncate_and_refill(name);
      case 7: return rewrite_in_place(name);
      case 8: return replace(name);
      case 9: return remove(name);
      case 10: remove(name); return append(name);
      case 11: return producer && names_of(name) == 1 ? append_and_delete(name) : append(name);
      // What was moved while nobody knew any stream is not found again.
      case 12: return file.alike || registry_lost ? append(name) : copy_and_truncate(name);
      case 18: return names_of(name) == 1 && !registry_lost ? move_by_copying(name) : append(name);
      case 19: return names_of(name) == 1 && !file.alike && !registry_lost ? compress(name) : append(name);
      case 13: return may_be_cut && file.bytes.size() >= 64 ? rewrite_second_half(name) : append(name);
      case 14: return move_over(name, some_name());
      case 15:
      case 16: return link(name);
      case 17: {
        const std::string other = some_name();
        return at.at(other)->alike || !knows_all_it_read ? append(name) : begin_alike(name, other);
      }
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
  /// Gives as many of `from` as possible one of `to` each, of those that `pairs` allows; returns who gets none.
  template <class Allowed>
  static std::vector<std::size_t> without_partner(std::size_t from, std::size_t to, Allowed&& allowed) {
    std::vector<std::optional<std::size_t>> partner(to);
    std::vector<bool> asked;
    const std::function<bool(std::size_t)> find = [&](std::size_t one) {
      for (std::size_t other = 0; other < to; ++other) {
        if (asked[other] || !allowed(one, other)) continue;
        asked[other] = true;
        if (partner[other] && !find(*partner[other])) continue;
        partner[other] = one;
        return true;
      }
      return false;
    };
    std::vector<std::size_t> alone;
    for (std::size_t one = 0; one < from; ++one) {
      asked.assign(to, false);
      if (!find(one)) alone.push_back(one);
    }
    return alone;
  }
  /// What has arrived was read, however soon the producer is killed.
  void note_what_arrived() {
    for (const auto& incarnation : incarnations) {
      for (const auto& [id, r] : consumer->received()) {
        const bool its_own = !incarnation->alike && incarnation->bytes.starts_with(r.bytes);
        if (its_own) incarnation->seen = std::max(incarnation->seen, r.bytes.size());
      }
    }
  }
  /// Each incarnation is a stream of its own, each stream an incarnation of its own.
  void expect_all_that_there_was() {
    ASSERT_THAT(consumer->wrong, testing::IsEmpty());
    std::vector<const Received*> streams;
    for (const auto& [id, r] : consumer->received()) {
      ASSERT_THAT(r.losses, testing::IsEmpty()) << r.info.path;
      if (!r.bytes.empty()) streams.push_back(&r);
    }
    std::vector<const Incarnation*> needed;
    for (const auto& incarnation : incarnations) {
      if (incarnation->seen > 0) needed.push_back(incarnation.get());
    }
    const auto same = [](const Incarnation& incarnation, const Received& r) {
      return r.bytes.size() >= incarnation.seen && incarnation.bytes.starts_with(r.bytes);
    };
    for (const std::size_t i : without_partner(needed.size(), streams.size(), [&](std::size_t one, std::size_t other) {
           return same(*needed[one], *streams[other]);
         })) {
      FAIL() << "no stream has these " << needed[i]->bytes.size() << " bytes, " << needed[i]->seen
             << " of which were there to be read: " << needed[i]->bytes.substr(0, 40) << received();
    }
    for (const std::size_t i : without_partner(
             streams.size(), incarnations.size(),
             [&](std::size_t one, std::size_t other) { return same(*incarnations[other], *streams[one]); })) {
      FAIL() << "a stream of " << streams[i]->info.path
             << " has bytes that no file had, or that another stream has: " << streams[i]->bytes.size() << " bytes, "
             << streams[i]->bytes.substr(0, 40) << received();
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
  TailerConfig tailing;
  bool from_end = false;
  bool polling = false;
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
  bool registry_lost = false;     ///< since the producer was stopped
  bool knows_all_it_read = true;  ///< else a file must not be cut within what was read of it
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

TEST_F(TailerModelTest, AFileThatIsRewrittenRightAfterAKillIsNoMixture) {
  for (const bool empty_at_first : {false, true}) {
    begin(1, "*.log");
    if (empty_at_first) {
      test::append(path("a.log"), "");
      for (int i = 0; i < 100 && consumer->received().empty(); ++i) run(kStep);
      ASSERT_EQ(consumer->received().size(), 1U) << "it is a stream";
    }
    append("a.log");
    run(100ms);  // read and sent, and its position not saved yet
    stop();
    truncate_and_refill("a.log");
    append("a.log");
    start();
    settle();
    expect_all_that_there_was();
    end();
  }
}

TEST_F(TailerModelTest, AStreamWhoseEndWasNotSavedHasEndedAllTheSame) {
  begin(1, "*.log");
  append("a.log");
  settle();
  const StreamId first = consumer->received().begin()->first;
  truncate_and_refill("a.log");
  run(100ms);  // another stream already, and the end of the first not saved yet
  stop();
  consumer->restart();
  start();
  settle();
  EXPECT_EQ(consumer->received().size(), 2U);
  EXPECT_TRUE(consumer->of(first)->final_length);
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

TEST_F(TailerModelTest, WhileNobodyListensNothingIsSent) {
  begin(1, "*.log");
  consumer->inlet.listening = false;
  consumer->link.go_down();
  append("a.log");
  run(2s);
  const auto sent = [&] { return producer->publisher->broadcast_counters().raw_bytes_sent; };
  EXPECT_EQ(sent(), 0U);
  consumer->inlet.listening = true;
  connect();
  settle();
  expect_all_that_there_was();
  EXPECT_EQ(sent(), incarnations[0]->bytes.size());
}

TEST_F(TailerModelTest, WhatWasSeenWhileNobodyListenedIsALossWhenItIsTruncated) {
  for (const bool running : {true, false}) {
    begin(1, "*.log");
    append("a.log");
    settle();
    const StreamId first = consumer->received().begin()->first;
    const FileOffset read{incarnations[0]->bytes.size()};
    consumer->inlet.listening = false;
    consumer->link.go_down();
    append("a.log");
    run(running ? kStep : 2s);
    const FileOffset seen{incarnations[0]->bytes.size()};
    if (!running) stop();
    truncate_and_refill("a.log");
    if (running) run(2s);
    consumer->inlet.listening = true;
    running ? connect() : start();
    run(3s);
    const Received& r = *consumer->of(first);
    ASSERT_EQ(r.losses.size(), 1U) << "running: " << running;
    EXPECT_EQ(r.losses[0].range, (ByteRange{read, seen}));
    EXPECT_EQ(r.losses[0].reason, wire::LossReason::kTruncated);
    EXPECT_EQ(consumer->received().size(), 2U);
    end();
  }
}

TEST_F(TailerModelTest, ACopyBesideAnyNameOfAFileTakesItsPlace) {
  for (const bool running : {true, false}) {
    begin(1, "*.log*");
    append("a.log");
    settle();
    std::filesystem::create_hard_link(path("a.log"), path("z.log"));
    at["z.log"] = at.at("a.log");
    settle();
    if (!running) stop();
    copy_and_truncate("z.log");
    if (!running) start();
    settle();
    expect_all_that_there_was();
    EXPECT_EQ(consumer->received().size(), 2U);
    end();
  }
}

TEST_F(TailerModelTest, WhatWasRotatedBeforeAnybodyLookedIsOlderThanWhatTookItsPlace) {
  begin(1, "*.log");
  append("a.log");
  settle();
  rename("a.log");
  append("a.log");
  rename("a.log");
  append("a.log");
  settle();
  expect_all_that_there_was();
  std::map<std::uint64_t, std::string> in_sequence;
  for (const auto& [id, r] : consumer->received()) in_sequence[r.info.sequence] = r.bytes;
  ASSERT_EQ(in_sequence.size(), 3U);
  EXPECT_EQ(in_sequence.rbegin()->second, at.at("a.log")->bytes);
}

TEST_F(TailerModelTest, OfAFileThatBeganAtItsEndNothingIsHeldAndNothingIsLost) {
  from_end = true;
  begin(1, "*.log", {"a.log"});
  settle();
  consumer->link.go_down();
  remove("a.log");
  run(20s);
  EXPECT_EQ(producer->tailer->size(), 0U) << "nobody lacks anything of it";
  stop();
  start();
  settle();
  EXPECT_EQ(producer->tailer->counters().given_up_bytes, 0U);
}

TEST_F(TailerModelTest, AFileThatBeganAtItsEndIsNotDeletedAfterItsCommit) {
  from_end = true;
  tailing.delete_after = Duration::zero();
  begin(1, "*.log", {"old.log"});
  append("old.log");
  append("new.log");
  settle();
  run(60s);
  EXPECT_FALSE(std::filesystem::exists(path("new.log")));
  EXPECT_TRUE(std::filesystem::exists(path("old.log"))) << "nobody has its beginning";
}

TEST_F(TailerModelTest, AnOldFileIsAStreamWhenItIsWrittenTo) {
  const auto age = [&](const std::string& name) {
    std::filesystem::last_write_time(path(name), std::filesystem::file_time_type::clock::now() - 2h);
  };
  tailing.ignore_older = 1h;
  begin(1, "*.log", {"known.log"});
  settle();
  age("known.log");
  append("old.log");
  age("old.log");
  run(10s);
  stop();
  append("older.log");
  age("older.log");
  start();
  run(10s);
  EXPECT_EQ(producer->tailer->size(), 1U) << "who is known goes on";
  append("old.log");
  settle();
  EXPECT_EQ(producer->tailer->size(), 2U);
  append("older.log");
  settle();
  expect_all_that_there_was();
  EXPECT_EQ(consumer->received().size(), 3U);
}

TEST_F(TailerModelTest, FromTheEndIsForTheVeryFirstStartOnly) {
  from_end = true;
  begin(1, "*.log");
  stop();
  append("a.log");
  start();
  settle();
  expect_all_that_there_was();
  remove("a.log");
  settle(20s);
  ASSERT_EQ(producer->tailer->size(), 0U) << "all streams are finished and forgotten";
  stop();
  append("b.log");
  start();
  settle();
  expect_all_that_there_was();
}

TEST_F(TailerModelTest, WhileTheRegistryCannotBeWrittenOnlyTheLastCommitOfEachStreamWaits) {
  begin(1, "*.log");
  append("a.log");
  settle();
  const std::string registry = *state / "registry.db";
  ASSERT_TRUE(Database::open(registry)->execute("ALTER TABLE commits RENAME TO away"));
  for (int i = 0; i < 20; ++i) {
    append("a.log");
    settle(500ms);
  }
  EXPECT_EQ(producer->tailer->unsaved_commits(), 1U);
  ASSERT_TRUE(Database::open(registry)->execute("ALTER TABLE away RENAME TO commits"));
  run(3s);
  EXPECT_EQ(producer->tailer->unsaved_commits(), 0U);
  const StreamId id = consumer->received().begin()->first;
  stop();
  start();
  EXPECT_EQ(producer->ledger.position("c", id), FileOffset{incarnations[0]->bytes.size()});
}

TEST_F(TailerModelTest, ManyNewDirectoriesAreFoundWithFewWalks) {
  begin(1, "**/*.log");
  settle();
  const std::uint64_t before = producer->tailer->counters().walks;
  const MonoTime began = now;
  for (int i = 0; i < 100; ++i) {
    const std::string name = "new" + std::to_string(i);
    std::filesystem::create_directory(path(name));
    run(kStep);
    append(name + "/a.log");
  }
  settle();
  const auto walks = producer->tailer->counters().walks - before;
  EXPECT_LE(walks, static_cast<std::uint64_t>((now - began) / 200ms) + 1);
  EXPECT_GE(walks, 1U);
  expect_all_that_there_was();
}

/// There are more files than are looked at in one piece, and than in two.
class StartTest : public TailerModelTest {
 protected:
  static constexpr std::size_t kPiece = 4096;  // at most
  static constexpr std::size_t kMany = 2 * kPiece + 1;

  static std::string name_of(std::size_t i) {
    std::string number = std::to_string(i);
    return std::string(5 - number.size(), '0') + number + ".log";
  }
  std::string text_of(std::size_t i) const {
    if (equal && (i == 0 || i == kMany - 1)) return std::string(5'000, 'x');
    return "these are the bytes of " + name_of(i) + "\n";
  }
  void begin_with(std::size_t many) {
    begin(1, "*.log");
    stop();
    state = std::make_unique<ScratchDirectory>();
    for (std::size_t i = 0; i < many; ++i) test::append(path(name_of(i)), text_of(i));
    start();
  }
  bool starting() const { return producer->tailer->size() < kMany; }
  std::size_t arrived() const {
    return static_cast<std::size_t>(std::count_if(consumer->received().begin(), consumer->received().end(),
                                                  [](const auto& r) { return !r.second.bytes.empty(); }));
  }
  /// Each file is one stream with all of its bytes.
  void expect_each_once() {
    ASSERT_THAT(consumer->wrong, testing::IsEmpty());
    std::map<std::string, std::string> by_path;
    for (const auto& [id, r] : consumer->received()) {
      ASSERT_THAT(r.losses, testing::IsEmpty()) << r.info.path;
      ASSERT_TRUE(by_path.emplace(r.info.path, r.bytes).second) << r.info.path << " comes as two streams";
    }
    ASSERT_EQ(by_path.size(), kMany);
    for (std::size_t i = 0; i < kMany; ++i) ASSERT_EQ(by_path[path(name_of(i))], text_of(i));
  }

  bool equal = false;  ///< the first and the last file; none is a copy, because both are there at the very first start
};

TEST_F(StartTest, FilesArriveWhileOthersWaitToBeLookedAt) {
  equal = true;
  begin_with(kMany);
  EXPECT_LE(producer->tailer->size(), kPiece);
  EXPECT_FALSE(producer->tailer->everything_sent()) << "there are more";
  while (starting() && arrived() == 0) run(kStep);
  EXPECT_TRUE(starting()) << "nothing came before all were looked at";
  EXPECT_GT(arrived(), 0U);
  settle();
  expect_each_once();
  EXPECT_TRUE(producer->tailer->everything_sent());
}

/// Like kill -9, twice; the consumer dies once, too, and has committed nothing.
TEST_F(StartTest, OneThatIsKilledInTheMiddleLosesNothingAndSendsNothingTwice) {
  equal = true;
  begin_with(kMany);
  for (const bool restarted : {false, true}) {
    while (starting() && arrived() == 0) run(kStep);
    ASSERT_TRUE(starting());
    stop();
    if (restarted) break;
    consumer->restart();
    start();
  }
  start();
  settle();
  expect_each_once();
}

TEST_F(StartTest, FilesThatHaveSomethingToSendAreLookedAtFirst) {
  begin_with(kMany);
  settle();
  stop();
  const std::string more = "and more\n";
  std::string expected = text_of(kMany - 1) + more;
  test::append(path(name_of(kMany - 1)), more);  // the last by its age
  start();
  run(kStep);  // a second piece: without an order the last file would be in the third
  const auto& all = consumer->received();
  EXPECT_TRUE(std::any_of(all.begin(), all.end(), [&](const auto& r) { return r.second.bytes == expected; }));
}

TEST_F(StartTest, AllAreLookedAtAtOnceWhereFilesBeginAtTheirEnd) {
  from_end = true;
  begin_with(kPiece + 1);
  EXPECT_EQ(producer->tailer->size(), kPiece + 1);
  stop();
  start();
  settle();
  EXPECT_EQ(arrived(), 0U) << "what was there at the very first start is not sent";
}

TEST_F(TailerModelTest, WalksThatTakeLongAreFurtherApartButNotForEver) {
  for (const bool events : {true, false}) {
    polling = !events;
    tailing.rescan = kStep;
    begin(1, "*.log");
    const int many = events ? 2'000 : 10;  // to walk by them takes more than a millisecond
    for (int i = 0; i < many; ++i) test::append(path(std::to_string(i) + ".log"), "");
    settle();
    const auto walks = [&] { return producer->tailer->counters().walks; };
    const std::uint64_t before = walks();
    run(2s);
    // With a rest of 200 times as long as a walk took they are ten times --rescan apart; when polling they do not rest.
    const std::uint64_t expected = events ? 2s / (10 * kStep) : 2s / kStep;
    EXPECT_GE(walks() - before, expected - 1);
    EXPECT_LE(walks() - before, expected + 1);
    end();
  }
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

TEST_F(TailerModelTest, AFileThatGetsANameThatNoPatternTakesInAnotherWatchedDirectoryIsFoundAfterAKill) {
  begin(1, "**/*.log");
  std::filesystem::create_directory(path("d"));
  append("a.log");
  settle();
  stop();
  append("a.log");
  std::filesystem::rename(path("a.log"), path("d/a.log.1"));
  start();
  settle(5s);
  expect_all_that_there_was();
  EXPECT_EQ(consumer->received().begin()->second.bytes, incarnations[0]->bytes);
  EXPECT_EQ(producer->tailer->counters().given_up_bytes, 0U);
}

TEST_F(TailerModelTest, ACopyThatLacksTheEndOfWhatWasReadIsKnownAfterAKill) {
  begin(1, "*.log*");
  append("a.log", chance->text(10'000));
  settle();
  producer->tailer->save_now();
  std::filesystem::copy_file(path("a.log"), path("a.log.1"));
  run(100ms);
  append("a.log", chance->text(100));
  run(100ms);
  note_what_arrived();
  const std::string text = chance->text(50);
  test::rewrite(path("a.log"), text);
  reincarnate("a.log", text);
  stop();
  start();
  settle();
  expect_all_that_there_was();
  EXPECT_EQ(consumer->received().size(), 2U);
}

/// A producer that is killed behind what is written, and files that are compressed before it starts again.
class CompressedTest : public TailerModelTest, public testing::WithParamInterface<ArchiveFormat> {
 protected:
  void begin_with(const std::string& text, const std::string& pattern = "*.log*") {
    begin(1, pattern);
    append("a.log", text);
    settle();
    first = consumer->received().begin()->first;
  }
  /// Nobody takes it, so it is not read.
  void lag(const std::string& text) {
    consumer->inlet.listening = false;
    consumer->link.go_down();
    append("a.log", text);
    run(100ms);
  }
  void start_again() {
    consumer->inlet.listening = true;
    start();
    settle(5s);
  }
  /// As if it had been there for a while.
  void age(const std::string& name) {
    std::filesystem::last_write_time(path(name), std::filesystem::file_time_type::clock::now() - 1h);
  }
  const Received& of_first() const {
    static const Received kNothing;
    const Received* received = consumer->of(first);
    return received != nullptr ? *received : kNothing;
  }

  StreamId first;
};
INSTANTIATE_TEST_SUITE_P(Formats, CompressedTest, testing::Values(ArchiveFormat::kGzip, ArchiveFormat::kZstd),
                         [](const auto& test) { return test.param == ArchiveFormat::kGzip ? "gzip" : "zstd"; });

TEST_P(CompressedTest, TheStreamGoesOnInTheArchive) {
  for (const std::size_t read : {300, 3'000'000}) {
    for (const std::size_t unread : {0, 1, 2'000'000}) {
      SCOPED_TRACE(std::to_string(read) + " bytes read, " + std::to_string(unread) + " not");
      begin_with(Chance(read).text(read));
      lag(chance->text(unread));
      stop();
      append("a.log", chance->text(500));
      compress("a.log", GetParam());
      append("a.log", chance->text(100));
      start_again();
      expect_all_that_there_was();
      EXPECT_EQ(of_first().bytes, incarnations[0]->bytes);
      EXPECT_EQ(consumer->received().size(), 2U);
      for (int i = 0; i < 2; ++i) {
        stop();
        start_again();
        EXPECT_EQ(consumer->received().size(), 2U) << "the archive is known";
        EXPECT_EQ(producer->tailer->counters().streams_created, 0U);
      }
      end();
    }
  }
}

TEST_P(CompressedTest, AnArchiveThatIsFoundWithTheFileThatItIsMadeOfIsItsCopy) {
  begin_with("known before\n");
  stop();
  append("b.log", chance->text(100'000));
  test::rewrite(path("b.log.gz"), test::compress(GetParam(), at.at("b.log")->bytes));
  start_again();
  expect_all_that_there_was();
  EXPECT_EQ(consumer->received().size(), 2U);
}

TEST_P(CompressedTest, ItGoesOnThereAfterAKillAtAnyMoment) {
  begin_with(Chance(1).text(1'000'000));
  lag(chance->text(4'000'000));
  stop();
  compress("a.log", GetParam());
  for (int i = 0; i < 100; ++i) {
    consumer->inlet.listening = true;
    start();
    run(kStep * static_cast<int>(number(50, 90)));  // a second to find out that the file is gone
    consumer->commit();
    stop();
  }
  start_again();
  expect_all_that_there_was();
  EXPECT_EQ(consumer->received().size(), 1U);
}

TEST_P(CompressedTest, WhatWasTruncatedGoesOnInTheArchiveOfItsCopy) {
  for (const std::size_t refilled : {50, 3'000'000}) {  // less and more than there was
    begin_with(Chance(1).text(100'000));
    lag(chance->text(1'000'000));
    if (refilled == 50) stop();
    const std::string text = chance->text(refilled);
    test::rewrite(path("a.log.1.gz"), test::compress(GetParam(), incarnations[0]->bytes));
    at["a.log.1.gz"] = at.at("a.log");
    test::rewrite(path("a.log"), text);
    incarnate("a.log", text);
    if (producer) run(100ms);
    stop();
    start_again();
    expect_all_that_there_was();
    EXPECT_EQ(of_first().bytes, incarnations[0]->bytes);
    EXPECT_EQ(consumer->received().size(), 2U);
    end();
  }
}

TEST_P(CompressedTest, TheStreamEndsWithTheArchiveAndStaysReadableWhileThatIsThere) {
  begin_with(Chance(1).text(1'500'000));
  lag(chance->text(1'000'000));
  stop();
  const std::string archive = compress("a.log", GetParam());
  age(archive);
  start_again();
  ASSERT_TRUE(of_first().final_length);
  EXPECT_EQ(of_first().final_length->raw, incarnations[0]->bytes.size());
  run(60s);
  stop();
  note("rename " + archive);
  std::filesystem::rename(path(archive), path("a.log.9.gz"));
  // Somebody else who has nothing of it.
  auto late = std::make_unique<RecordingConsumer>("late", *chance);
  broadcast->inlets = {&late->inlet};
  control->links = {&late->link};
  consumer = std::move(late);
  start();
  run(20s);
  EXPECT_EQ(of_first().bytes, incarnations[0]->bytes);
  EXPECT_EQ(consumer->received().size(), 1U);
  consumer->commit();
  run(60s);
  EXPECT_EQ(producer->tailer->size(), 1U);
  std::filesystem::remove(path("a.log.9.gz"));
  run(60s);
  EXPECT_EQ(producer->tailer->size(), 0U) << "nothing of it can be read any more";
  EXPECT_THAT(of_first().losses, testing::IsEmpty());
}

/// As when another file gets the inode of one that was deleted.
TEST_P(CompressedTest, WhatIsAsLongAsTheArchiveWasIsNotTakenForIt) {
  begin_with(Chance(1).text(10'000));
  stop();
  const std::string archive = compress("a.log", GetParam());
  age(archive);
  start_again();
  ASSERT_TRUE(of_first().final_length);
  const std::string another = chance->text(std::filesystem::file_size(path(archive)));
  test::write_at(path(archive), 0, another);
  incarnate(archive, another);
  run(10s);
  expect_all_that_there_was();
  EXPECT_EQ(consumer->received().size(), 2U);
}

TEST_P(CompressedTest, WhatIsInTheArchiveCanBeSentAgain) {
  begin_with(Chance(1).text(1'500'000));
  stop();
  const std::string archive = compress("a.log", GetParam());
  age(archive);
  start_again();
  ASSERT_TRUE(of_first().final_length);
  const auto sent = [&] { return producer->publisher->broadcast_counters().raw_bytes_sent; };
  const std::uint64_t before = sent();
  ASSERT_TRUE(producer->tailer->rewind(first, {500'000}));
  run(5s);
  EXPECT_EQ(sent() - before, 1'000'000U);
  ASSERT_TRUE(producer->tailer->rewind(first, {100}));
  producer->tailer->save_now();
  stop();
  start_again();
  EXPECT_EQ(sent(), 1'500'000U - 100U);
  EXPECT_THAT(of_first().losses, testing::IsEmpty());
  EXPECT_EQ(producer->tailer->size(), 1U);
}

TEST_P(CompressedTest, TheLengthOfWhatAFileWasRewrittenWithIsNotThatOfTheStream) {
  begin_with(Chance(1).text(100'000));
  test::rewrite(path("a.log.1.gz"), test::compress(GetParam(), incarnations[0]->bytes));
  test::rewrite(path("a.log"), chance->text(3'000'000));
  for (int i = 0; i < 100 && producer->tailer->counters().streams_adopted == 0; ++i) run(kStep);
  producer->tailer->save_now();
  stop();
  start_again();
  ASSERT_TRUE(of_first().final_length);
  EXPECT_EQ(of_first().final_length->raw, 100'000U);
  EXPECT_EQ(consumer->received().size(), 2U);
}

TEST_P(CompressedTest, AnArchiveThatIsRotatedOnBeforeItIsReadIsKnownForWhatItIs) {
  begin_with(Chance(1).text(100'000));
  lag(chance->text(1'000'000));
  stop();
  const std::string archive = compress("a.log", GetParam());
  start();
  consumer->link.go_down();
  run(3s);
  EXPECT_EQ(producer->tailer->counters().streams_adopted, 1U);
  std::filesystem::rename(path(archive), path("a.log.9.gz"));
  run(200s);  // three walks
  stop();
  start_again();
  EXPECT_EQ(of_first().bytes, incarnations[0]->bytes);
  EXPECT_TRUE(of_first().final_length);
  EXPECT_EQ(consumer->received().size(), 1U);
}

TEST_P(CompressedTest, WhatADamagedArchiveLacksIsALoss) {
  begin_with(Chance(1).text(100'000));
  lag(chance->text(2'000'000));
  stop();
  const std::string archive = compress("a.log", GetParam());
  std::filesystem::resize_file(path(archive), std::filesystem::file_size(path(archive)) / 2);
  age(archive);
  start_again();
  ASSERT_EQ(of_first().losses.size(), 1U);
  EXPECT_EQ(of_first().losses[0].reason, wire::LossReason::kArchiveDamaged);
  const std::size_t got = of_first().losses[0].range.from.raw;
  EXPECT_GT(got, 500'000U);
  EXPECT_EQ(of_first().bytes.substr(0, got), incarnations[0]->bytes.substr(0, got));
  EXPECT_EQ(consumer->received().size(), 1U);
  stop();
  start_again();
  EXPECT_EQ(consumer->received().size(), 1U);
}

TEST_P(CompressedTest, WhatIsNotInAnArchiveThatIsCompleteIsALoss) {
  begin_with(Chance(1).text(100'000));
  lag(chance->text(50'000));
  producer->tailer->save_now();
  stop();
  const std::string archive = compress("a.log", GetParam());
  test::rewrite(path(archive), test::compress(GetParam(), incarnations[0]->bytes.substr(0, 120'000)));
  age(archive);
  start_again();
  run(30s);
  ASSERT_EQ(of_first().losses.size(), 1U);
  EXPECT_EQ(of_first().losses[0].reason, wire::LossReason::kTruncated);
  EXPECT_EQ(of_first().losses[0].range, (ByteRange{{120'000}, {150'000}}));
  EXPECT_EQ(of_first().bytes.substr(0, 120'000), incarnations[0]->bytes.substr(0, 120'000));
}

TEST_P(CompressedTest, AnArchiveThatDiffersBeforeTheCursorIsAStreamOfItsOwn) {
  begin_with(Chance(1).text(100'000));
  stop();
  const std::string archive = compress("a.log", GetParam());
  std::string other = incarnations[0]->bytes + "more";
  other[99'950] ^= 1;
  test::rewrite(path(archive), test::compress(GetParam(), other));
  start_again();
  ASSERT_EQ(consumer->received().size(), 2U);
  for (const auto& [id, r] : consumer->received()) {
    EXPECT_EQ(r.bytes, id == first ? incarnations[0]->bytes : other);
  }
}

TEST_P(CompressedTest, ArchivesThatAreSentAsTheyAreAreNoCopies) {
  tailing.decompress = false;
  begin_with(Chance(1).text(100'000));
  stop();
  const std::string archive = compress("a.log", GetParam());
  const std::string packed = test::contents(path(archive));
  start_again();
  ASSERT_EQ(consumer->received().size(), 2U);
  for (const auto& [id, r] : consumer->received()) {
    EXPECT_EQ(r.bytes, id == first ? incarnations[0]->bytes : packed);
  }
}

TEST_P(CompressedTest, AnArchiveThatIsBeingMadeIsWaitedFor) {
  begin_with(Chance(1).text(1'000'000));
  const std::string packed = test::compress(GetParam(), incarnations[0]->bytes);
  std::filesystem::rename(path("a.log"), path("a.log.1"));
  const UniqueFd writer(::open(path("a.log.1.gz").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_GT(::write(writer.get(), packed.data(), packed.size() / 2), 0);
  run(10s);
  stop();
  start();
  run(10s);
  EXPECT_EQ(consumer->received().size(), 1U);
  const std::string rest = packed.substr(packed.size() / 2);
  ASSERT_EQ(::write(writer.get(), rest.data(), rest.size()), static_cast<ssize_t>(rest.size()));
  run(3s);
  std::filesystem::remove(path("a.log.1"));
  run(3s);
  EXPECT_EQ(consumer->received().size(), 1U);
  EXPECT_EQ(producer->tailer->counters().streams_adopted, 1U) << "what is open is not needed any more";
}

TEST_P(CompressedTest, WhatIsHeldForAConsumerIsInTheArchiveAfterAKill) {
  for (const char* pattern : {"*.log", "*.log*"}) {
    begin_with(Chance(1).text(100'000), pattern);
    lag(chance->text(1'000'000));
    compress("a.log", GetParam());
    run(5s);
    producer->tailer->save_now();
    stop();
    start_again();
    EXPECT_EQ(of_first().bytes, incarnations[0]->bytes);
    EXPECT_THAT(of_first().losses, testing::IsEmpty());
    EXPECT_EQ(consumer->received().size(), 1U);
    end();
  }
}

TEST_P(CompressedTest, WhatWasSentAndNotCommittedIsInTheArchiveAfterAKill) {
  for (const char* pattern : {"*.log", "*.log*"}) {
    begin(1, pattern);
    append("a.log", chance->text(100'000));
    run(2s);
    compress("a.log", GetParam());
    run(5s);
    producer->tailer->save_now();
    stop();
    consumer->restart();
    start_again();
    ASSERT_EQ(consumer->received().size(), 1U);
    EXPECT_EQ(consumer->received().begin()->second.bytes, incarnations[0]->bytes);
    EXPECT_THAT(consumer->received().begin()->second.losses, testing::IsEmpty());
    end();
  }
}

TEST_P(CompressedTest, WhoStillWritesToADeletedFileKeepsItsStreamThere) {
  begin_with(Chance(1).text(2'000));  // the shortest are the hardest to know
  const UniqueFd writer(::open(path("a.log").c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  compress("a.log", GetParam());
  run(10s);
  EXPECT_EQ(producer->tailer->counters().streams_adopted, 0U);
  const std::string more = chance->text(100);
  ASSERT_EQ(::write(writer.get(), more.data(), more.size()), 100);
  run(10s);
  EXPECT_EQ(of_first().bytes, incarnations[0]->bytes + more);
  EXPECT_EQ(consumer->received().size(), 1U);
}

TEST_P(CompressedTest, ALargeArchiveIsReadThroughInPieces) {
  begin_with(Chance(1).text(10'000));
  const std::string large = std::string(64'000'000, 'x');
  lag(large);
  producer->tailer->save_now();  // that there is so much
  stop();
  compress("a.log", GetParam());
  append("a.log", "first\n");
  consumer->inlet.listening = true;
  start();
  run(1500ms);  // 75 turns
  EXPECT_EQ(producer->tailer->counters().streams_adopted, 0U);
  EXPECT_EQ(consumer->received().size(), 2U) << "the other file is read meanwhile";
  run(3s);
  EXPECT_EQ(producer->tailer->counters().streams_adopted, 1U);
  run(10s);
  EXPECT_EQ(of_first().bytes, incarnations[0]->bytes);
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

TEST_F(TailerModelTest, ALostRegistryIsRebuiltAndNothingIsLostOrSentTwice) {
  for (const std::uint64_t seed : test::seeds(20)) {
    begin(seed, "*.log*");
    SCOPED_TRACE(test::replay(seed));
    for (int i = 0; i < 30; ++i) {
      something_happens_to_files();
      settle();
      if (chance->with(0.3)) {
        note("stop");
        producer->tailer->save_now();
        stop();
        lose_registry();
        knows_all_it_read = false;  // consumers know the beginning of a file, not what is before their cursor
        for (std::size_t k = number(0, 3); k > 0; --k) something_happens_to_files();
        knows_all_it_read = true;
        note("start");
        start();
        settle(5s);
      }
      expect_all_that_there_was();
      if (HasFatalFailure()) FAIL() << story();
    }
    end();
  }
}

TEST_F(TailerModelTest, AFileThatLeftThePatternIsFoundAfterTheRegistryWasLost) {
  begin(1, "*.log");
  append("a.log");
  settle();
  while (incarnations[0]->bytes.size() < 5'000) append("a.log");  // consumers learn its beginning as it grows
  settle();
  stop();
  lose_registry();
  rename("a.log");
  append(at.begin()->first);
  append("a.log");
  start();
  settle(5s);
  expect_all_that_there_was();
  EXPECT_EQ(consumer->received().size(), 2U);
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
        note_what_arrived();
        stop();
        for (std::size_t k = number(0, 3); k > 0; --k) something_happens_to_files();
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
