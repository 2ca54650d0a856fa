#pragma once

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

}  // namespace fantail
