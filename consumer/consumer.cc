#include "consumer/consumer.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "common/base/version.h"
#include "consumer/file_sink.h"
#include "consumer/mirror_sink.h"
#include "consumer/stdout_sink.h"

namespace fantail {
namespace {

constexpr int kQueueMessages = 8;  // per producer: 2 MiB of full chunks; more waits in the kernel and at the producer
constexpr int kMulticastQueueMessages = 128;  // of all producers together: 32 MiB of full chunks
constexpr Duration kRetryBlocked = 250ms;
constexpr Duration kProgressInterval = 500ms;
constexpr Duration kCheckInterval = 20ms;  // for the end that --once and --idle-exit wait for
constexpr Duration kLastSync = 30s;        // on the way out
constexpr Duration kLongestWait = 1s;
constexpr Duration kTalkSpacing =
    2ms;  // while lines come one by one, control links and signals are not looked at for each
constexpr Duration kWatchInterval = 250ms;

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name[0] == '\0' ? "localhost" : name.data();
}

}  // namespace

/// One stream and how far each sink has taken it.
struct Consumer::Entry {
  StreamMeta meta;
  std::vector<FileOffset> taken;                   ///< by sink
  std::vector<FileOffset> durable;                 ///< by sink
  std::vector<std::optional<FileOffset>> opening;  ///< by sink: where to open, while it could not be opened yet
  struct Loss {
    ByteRange range;
    wire::LossReason reason;
  };
  std::vector<Loss> losses;  ///< not yet taken by every sink
  std::optional<FileOffset> sealing;
};

Consumer::Consumer(const ConsumerConfig& config) : config_(config), on_terminal_(::isatty(STDERR_FILENO) == 1) {}
Consumer::~Consumer() = default;

Result<std::unique_ptr<Consumer>> Consumer::open(const ConsumerConfig& config) {
  raise_descriptor_limit();
  std::unique_ptr<Consumer> consumer(new Consumer(config));
  if (auto ok = consumer->open_state(); !ok) return tl::unexpected(ok.error());
  if (auto ok = consumer->open_sinks(); !ok) return tl::unexpected(ok.error());
  if (auto ok = consumer->connect(); !ok) return tl::unexpected(ok.error());
  return consumer;
}

Status Consumer::open_state() {
  if (!config_.durable()) return {};
  auto state = StateDirectory::open(config_.state_dir.empty() ? default_state_directory("consumer")
                                                              : std::filesystem::path(config_.state_dir));
  if (!state) return tl::unexpected(state.error());
  std::string set_aside;
  auto store = CursorStore::open(*state, set_aside);
  if (!store) return tl::unexpected(store.error());
  if (!set_aside.empty()) {
    log::error(
        "the cursor store is damaged; it was set aside and a new one begun: streams are fetched again from their start",
        {{"path", set_aside}});
  }
  state_ = std::move(*state);
  store_ = std::move(*store);
  return {};
}

Status Consumer::open_sinks() {
  const RecordFormat format = *RecordFormat::parse(config_.format);
  for (const auto& output : config_.sinks()) {
    switch (output.kind) {
      case ConsumerConfig::Output::Kind::kStdout: {
        auto sink = std::make_unique<StdoutSink>(format, config_.flush_partial);
        stdout_ = sink.get();
        sinks_.push_back(std::move(sink));
        break;
      }
      case ConsumerConfig::Output::Kind::kMirror: {
        auto sink = MirrorSink::open(output.target, *store_);
        if (!sink) return tl::unexpected(sink.error());
        sinks_.push_back(std::move(*sink));
        break;
      }
      case ConsumerConfig::Output::Kind::kFile: {
        auto sink = FileSink::open(*PathTemplate::parse(output.target), format, config_.rotation(), *store_);
        if (!sink) return tl::unexpected(sink.error());
        sinks_.push_back(std::move(*sink));
        break;
      }
    }
  }
  if (store_) {
    std::vector<std::string> keys;
    for (const auto& sink : sinks_) keys.push_back(sink->key());
    known_.emplace(*store_, std::move(keys));
  }
  return {};
}

Status Consumer::connect() {
  wire::Peer self;
  self.role = wire::Role::kConsumer;
  self.software = std::string("fantail ") + kVersion;
  self.instance = random_id<InstanceId>();
  self.name = config_.name.empty() ? host_name() : config_.name;
  if (store_) {
    self.node = store_->id();
    self.durable_name = config_.name.empty() ? host_name() + "-" + short_hex(store_->id()) : config_.name;
  }
  const Interest interest = config_.interest();
  self.topics = interest.topics;
  self.shard_index = interest.shard_index;
  self.shard_count = interest.shard_count;
  auto control = ControlLink::open(context_, self);
  if (!control) return tl::unexpected(control.error());
  control_ = std::move(*control);
  if (config_.epgm()) {
    const EpgmConfig multicast = config_.multicast();
    auto socket = EpgmSubscriber::open(context_, multicast, kMulticastQueueMessages, config_.subscriptions());
    if (!socket) return tl::unexpected(socket.error());
    multicast_ = std::move(*socket);
    inlet_ = multicast_.get();
    log::info("listening", {{"endpoint", multicast.address}});
    if (!config_.interface.starts_with("127.") && config_.interface != "lo") {
      log::warn("multicast is not encrypted: anybody on the network can send and read",
                {{"endpoint", multicast.address}});
    }
  } else if (auto ok = connect_tcp(); !ok) {
    return ok;
  }
  streams_ = std::make_unique<StreamSubscriber>(config_.subscriber(store_.has_value()), *inlet_, *control_, *this);
  return {};
}

Status Consumer::connect_tcp() {
  auto socket = Subscriber::open(context_, kQueueMessages, config_.subscriptions());
  if (!socket) return tl::unexpected(socket.error());
  subscriber_socket_ = std::move(*socket);
  inlet_ = subscriber_socket_.get();

  bool bound_control = false;
  for (const Endpoint& endpoint : config_.bind_endpoints()) {
    const auto data = subscriber_socket_->bind(endpoint);
    if (!data) return tl::unexpected(data.error());
    std::string control_at = "-";
    if (!bound_control) {
      const auto bound =
          control_->bind(config_.control.empty() ? control_endpoint(endpoint) : *parse_endpoint(config_.control));
      if (!bound) return tl::unexpected(bound.error());
      control_at = *bound;
      bound_control = true;
    }
    log::info("listening", {{"endpoint", *data}, {"control", control_at}});
    if (!endpoint.is_local()) {
      log::warn("listening beyond this host without keys: anybody who reaches the port can send and read",
                {{"endpoint", *data}});
    }
  }
  for (const auto& text : config_.connect) {
    const Endpoint endpoint = *parse_endpoint(text);
    if (auto ok = subscriber_socket_->connect(endpoint); !ok) return ok;
    const auto peer = control_->connect(control_endpoint(endpoint).to_string());
    if (!peer) return tl::unexpected(peer.error());
    log::info("connecting", {{"endpoint", endpoint.to_string()}});
  }
  return {};
}

// ---- streams into sinks

StreamReceiver::Start Consumer::on_stream(const NodeView& node, const wire::StreamInfo& info, bool news) {
  auto entry = std::make_unique<Entry>();
  StreamMeta& meta = entry->meta;
  meta.stream = info.stream;
  meta.node = node.id;
  meta.node_name = node.name;
  meta.node_dir = node.name;
  meta.topic = info.topic;
  meta.path = info.path;
  meta.sequence = info.sequence;
  meta.first_seen = info.first_seen;
  bool born_after_us = news;
  if (store_) {
    if (const auto row = store_->node(node.id, node.name)) {
      meta.node_dir = row->directory;
      // It came to be while this consumer knew the node, though perhaps not while it was running.
      born_after_us = born_after_us || (row->known_sequence > 0 && info.sequence > row->known_sequence);
    } else {
      log::error("cannot record a node", {{"node", node.name}, {"error", row.error()}});
      meta.node_dir = to_string(node.id);
    }
    auto& known = known_sequences_[node.id];
    known = std::max(known, info.sequence);
    known_->told(node.id, info);
  }
  const FileOffset begin = config_.from == "now" && !born_after_us ? info.head : info.base;
  Start start{FileOffset{UINT64_MAX}, FileOffset{UINT64_MAX}};
  for (const auto& sink : sinks_) {
    const auto stored = store_ ? store_->cursor(sink->key(), info.stream) : std::nullopt;
    entry->taken.push_back(std::max(stored.value_or(begin), info.base));
    entry->durable.push_back(stored.value_or(FileOffset{}));
    entry->opening.emplace_back(entry->taken.back());
  }
  Entry& ref = *entry;
  entries_[info.stream] = std::move(entry);
  if (auto ok = catch_up(ref); !ok) blocked_by(ok.error());
  for (std::size_t i = 0; i < sinks_.size(); ++i) {
    start.cursor = std::min(start.cursor, ref.taken[i]);
    start.committed = std::min({start.committed, ref.durable[i], ref.taken[i]});
  }
  return start;
}

/// Everything that a sink could not take before: opening, losses, the seal.
Status Consumer::catch_up(Entry& entry) {
  const auto attempt = [&]() -> Status {
    for (std::size_t i = 0; i < sinks_.size(); ++i) {
      if (!entry.opening[i]) continue;
      const auto at = sinks_[i]->open_stream(entry.meta, *entry.opening[i]);
      if (!at) return tl::unexpected(at.error());
      entry.taken[i] = *at;
      entry.opening[i].reset();
    }
    while (!entry.losses.empty()) {
      const Entry::Loss& loss = entry.losses.front();
      for (std::size_t i = 0; i < sinks_.size(); ++i) {
        if (entry.taken[i] >= loss.range.to) continue;
        const ByteRange rest{std::max(entry.taken[i], loss.range.from), loss.range.to};
        if (auto ok = sinks_[i]->lose(entry.meta, rest, loss.reason); !ok) return ok;
        entry.taken[i] = loss.range.to;
      }
      entry.losses.erase(entry.losses.begin());
    }
    if (entry.sealing) {
      for (const auto& sink : sinks_) {
        if (auto ok = sink->seal(entry.meta, *entry.sealing); !ok) return ok;
      }
      entry.sealing.reset();
    }
    return {};
  };
  const Status status = attempt();
  if (status) {
    waiting_.erase(entry.meta.stream);
  } else {
    waiting_.insert(entry.meta.stream);
  }
  return status;
}

StreamReceiver::Delivery Consumer::on_data(StreamId stream, FileOffset offset, std::span<const std::byte> bytes,
                                           WallTime read_time) {
  Entry& entry = *entries_.at(stream);
  if (waiting_.contains(stream)) {
    if (auto ok = catch_up(entry); !ok) {
      blocked_by(ok.error());
      return Delivery::kBlocked;
    }
  }
  const FileOffset end = offset + bytes.size();
  for (std::size_t i = 0; i < sinks_.size(); ++i) {
    if (entry.taken[i] >= end) continue;  // it took them before another sink refused, or before a restart
    const FileOffset from = std::max(entry.taken[i], offset);
    const auto rest = bytes.subspan(static_cast<std::size_t>(from - offset));
    if (auto ok = sinks_[i]->write(entry.meta, from, rest, read_time); !ok) {
      blocked_by(ok.error());
      return Delivery::kBlocked;
    }
    entry.taken[i] = end;
  }
  return Delivery::kTaken;
}

void Consumer::on_loss(StreamId stream, ByteRange range, wire::LossReason reason) {
  Entry& entry = *entries_.at(stream);
  if (store_) {
    if (auto ok = store_->record_loss({entry.meta, range, reason}); !ok) {
      log::error("cannot record a loss", {{"stream", stream}, {"error", ok.error()}});
    }
  }
  entry.losses.push_back({range, reason});
  if (auto ok = catch_up(entry); !ok) blocked_by(ok.error());
}

void Consumer::on_sealed(StreamId stream, FileOffset final_length) {
  if (known_) known_->sealed(stream, final_length);
  Entry& entry = *entries_.at(stream);
  entry.sealing = final_length;
  if (auto ok = catch_up(entry); !ok) blocked_by(ok.error());
}

void Consumer::on_info(const NodeView& node, const wire::StreamInfo& info) {
  if (known_) known_->told(node.id, info);
}

std::optional<bool> Consumer::tell_known(const NodeView& node, std::uint64_t after, StreamsPage& page) {
  return known_ ? known_->tell(node.id, after, page) : false;
}

void Consumer::on_beacon(const wire::Beacon& beacon) {
  if (!config_.epgm() || beacon.control.empty()) return;
  const auto endpoint = parse_endpoint(beacon.control);
  if (!endpoint || endpoint->scheme != Endpoint::Scheme::kTcp || !endpoint->port) return;
  const auto known = controls_.find(beacon.node);
  if (known != controls_.end() && known->second.address == beacon.control) return;
  constexpr std::size_t kMaxNodes = 4096;  // more can only be an attack
  if (known == controls_.end() && controls_.size() >= kMaxNodes) return;
  const auto peer = control_->connect(beacon.control);
  if (!peer) {
    if (const auto n = blocked_log_.occurred(mono_now())) {
      log::warn("cannot reach the control link of a node",
                {{"node", beacon.name}, {"error", peer.error()}, {"count", *n}});
    }
    return;
  }
  // The node was started anew; what comes up at the new address takes the place of the old.
  if (known != controls_.end()) control_->disconnect(known->second.peer);
  controls_[beacon.node] = {beacon.control, *peer};
}

/// Keeps the relay alive, and replaces one that is wedged.
void Consumer::watch_multicast(MonoTime now) {
  RelayProcess& relay = multicast_->relay();
  relay.turn(now);
  if (wedge_.wedged(streams_->activity(), relay.started(), now))
    relay.replace(now, "producers send and nothing arrives");
}

void Consumer::blocked_by(const Error& error) {
  retry_at_ = mono_now() + kRetryBlocked;
  if (error.code == ErrorCode::kWouldBlock) return;  // a slow reader of standard output is no fault
  if (const auto n = blocked_log_.occurred(mono_now())) {
    log::error("cannot write, waiting for it to become possible; nothing is lost", {{"error", error}, {"count", *n}});
  }
}

void Consumer::retry_blocked(MonoTime now) {
  const bool reader_came_back = stdout_ != nullptr && stdout_->drained();
  if (now < *retry_at_ && !reader_came_back) return;
  retry_at_.reset();
  for (const StreamId id : std::set(waiting_)) {
    if (auto ok = catch_up(*entries_.at(id)); !ok) blocked_by(ok.error());
  }
  streams_->resume();
}

void Consumer::flush(MonoTime now) {
  for (const auto& sink : sinks_) {
    if (auto ok = sink->flush(now); !ok && !(stdout_ != nullptr && stdout_->closed())) blocked_by(ok.error());
  }
}

// ---- commit cycle

/// Takes a checkpoint of every sink and has it made durable. False: nothing to do, or not now.
bool Consumer::begin_sync() {
  if (!store_ || worker_.busy() || storing_) return false;
  for (const auto& sink : sinks_) {
    if (auto ok = sink->prepare_checkpoint(); !ok) {
      blocked_by(ok.error());
      return false;
    }
  }
  if (!std::all_of(sinks_.begin(), sinks_.end(), [](const auto& s) { return s->drained(); })) return false;
  SyncWorker::Job job;
  syncing_.clear();
  bool anything = false;
  for (const auto& sink : sinks_) {
    Checkpoint checkpoint = sink->checkpoint();
    anything = anything || !checkpoint.positions.empty() || !checkpoint.outputs.empty();
    for (auto& fd : checkpoint.files) job.files.push_back(std::move(fd));
    if (checkpoint.filesystem) job.filesystems.push_back(std::move(checkpoint.filesystem));
    syncing_.push_back({sink->key(), std::move(checkpoint.positions), std::move(checkpoint.outputs)});
  }
  if (!anything && known_sequences_.empty() && known_->unsaved().empty()) return false;
  worker_.submit(std::move(job));
  return true;
}

/// When the worker is done: goes on to store the cursors. False while it is not done.
bool Consumer::finish_sync() {
  const auto result = worker_.take_result();
  if (!result) return false;
  if (!*result) {
    // After a failed fsync the kernel may have dropped what it could not write: only reading it again from the source
    // helps.
    log::error("cannot make output durable; ending, a restart goes on from the last commit",
               {{"error", result->error()}});
    failed_ = true;
    return true;
  }
  storing_ = true;
  store_checkpoint();
  return true;
}

/// Stores the cursors of what is durable and tells the producers. False: not now.
bool Consumer::store_checkpoint() {
  if (auto ok = store_->save(syncing_, known_sequences_, known_->unsaved()); !ok) {
    if (const auto n = blocked_log_.occurred(mono_now())) {
      log::error("cannot store cursors, waiting for it to become possible; nothing is lost",
                 {{"error", ok.error()}, {"count", *n}});
    }
    return false;
  }
  storing_ = false;
  for (const auto& sink : sinks_) sink->stored();
  if (retry_at_) retry_at_ = mono_now();  // a sink may have waited for this
  known_sequences_.clear();
  known_->saved();
  std::set<StreamId> moved;
  for (std::size_t i = 0; i < syncing_.size(); ++i) {
    for (const auto& position : syncing_[i].positions) {
      entries_.at(position.stream)->durable[i] = position.offset;
      moved.insert(position.stream);
    }
  }
  std::vector<wire::CommitEntry> commits;
  for (const StreamId id : moved) {
    const auto& durable = entries_.at(id)->durable;
    commits.push_back({id, *std::min_element(durable.begin(), durable.end())});
  }
  streams_->commit(commits);
  return true;
}

void Consumer::cycle(MonoTime now) {
  if (worker_.busy()) finish_sync();
  if (now < next_sync_) return;
  next_sync_ = now + config_.sync;
  if (storing_) store_checkpoint();
  begin_sync();
}

/// On the way out: everything that was taken gets durable and committed.
bool Consumer::settle_all(Duration limit) {
  const MonoTime until = mono_now() + limit;
  Waiter waiter;
  waiter.add_descriptor(worker_.fd());
  const auto finish = [&] {
    while (worker_.busy() && mono_now() < until) {
      if (!finish_sync()) waiter.wait(100ms);
    }
  };
  finish();
  if (storing_) store_checkpoint();
  flush(mono_now());
  while (stdout_ != nullptr && !stdout_->drained() && !stdout_->closed() && mono_now() < until) {
    pollfd writable{STDOUT_FILENO, POLLOUT, 0};
    ::poll(&writable, 1, 100);
    flush(mono_now());
  }
  begin_sync();
  finish();
  return !worker_.busy() && !storing_ && !failed_;
}

// ---- the loop

std::size_t Consumer::turn(MonoTime now, bool talk) {
  std::size_t work = talk ? control_->turn(now, *streams_) : 0;
  work += streams_->turn(now);
  if (multicast_) watch_multicast(now);
  flush(now);
  if (retry_at_) retry_blocked(now);
  cycle(now);
  if (streams_->counters().bytes_delivered != delivered_seen_) {
    delivered_seen_ = streams_->counters().bytes_delivered;
    last_data_ = now;
  }
  return work;
}

void Consumer::wait(MonoTime now, StopSignals& signals) {
  Waiter waiter;
  waiter.add_descriptor(signals.fd());
  waiter.add_descriptor(worker_.fd());
  waiter.add_socket(multicast_ ? multicast_->native_socket() : subscriber_socket_->native_socket());
  if (multicast_ && multicast_->relay().fd() >= 0) waiter.add_descriptor(multicast_->relay().fd());
  for (void* socket : control_->native_sockets()) waiter.add_socket(socket);
  MonoTime until = std::min({now + kLongestWait, streams_->due(now), control_->due()});
  if (store_) until = std::min(until, next_sync_);
  if (multicast_) until = std::min({until, multicast_->relay().due(now), now + kWatchInterval});
  if (retry_at_) until = std::min(until, *retry_at_);
  if (stdout_ != nullptr && !stdout_->drained()) until = std::min<MonoTime>(until, now + 5ms);
  if (config_.once || config_.idle_exit > 0s) until = std::min(until, next_check_);
  if (on_terminal_) until = std::min(until, next_progress_);
  waiter.wait(until - now);
  const auto controls = control_->native_sockets();
  called_ = waiter.ready(signals.fd()) ||
            std::any_of(controls.begin(), controls.end(), [&](void* socket) { return waiter.ready(socket); });
}

bool Consumer::finished(MonoTime now) {
  if (!config_.once && config_.idle_exit == 0s) return false;
  if (now < next_check_) return false;
  next_check_ = now + kCheckInterval;
  if (now - last_data_ < config_.idle_exit || retry_at_ || !waiting_.empty()) return false;
  return streams_->overview().settled;
}

void Consumer::show_progress(MonoTime now) {
  if (!on_terminal_ || now < next_progress_) return;
  next_progress_ = now + kProgressInterval;
  log::set_status_line(progress_.line(streams_->overview(), streams_->counters(), now));
}

int Consumer::run(StopSignals& signals) {
  last_data_ = mono_now();
  for (;;) {
    const MonoTime now = mono_now();
    const bool talk = called_ || now - talked_ >= kTalkSpacing || now >= control_->due();
    if (talk) talked_ = now;
    called_ = false;
    const std::size_t work = turn(now, talk);
    if ((talk && signals.take() > 0) || failed_ || (stdout_ != nullptr && stdout_->closed())) break;
    show_progress(now);
    if (work != 0 && !streams_->caught_up()) continue;
    if (work == 0 && finished(now)) break;
    wait(mono_now(), signals);
  }
  if (on_terminal_) log::set_status_line({});
  for (const auto& sink : sinks_) sink->finish();
  if (!failed_ && !settle_all(kLastSync)) failed_ = true;
  const auto& counters = streams_->counters();
  log::info("consumer ended", {{"bytes", counters.bytes_delivered},
                               {"bytes_fetched", counters.bytes_fetched},
                               {"bytes_lost", counters.lost_bytes},
                               {"rejected", counters.rejected + control_->counters().rejected},
                               {"refused_versions", control_->counters().refused_versions}});
  if (failed_) return 1;
  return counters.lost_bytes > 0 ? 3 : 0;
}

}  // namespace fantail
