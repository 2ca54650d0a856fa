#include "consumer/consumer.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "common/base/program.h"
#include "common/base/version.h"
#include "consumer/entry.h"
#include "consumer/file_sink.h"
#include "consumer/mirror_sink.h"
#include "consumer/stdout_sink.h"

namespace fantail {
namespace {

constexpr int kQueueMessages = 8;  // per producer: 2 MiB of full chunks; more waits in the kernel and at the producer
constexpr int kMulticastQueueMessages = 128;  // of all producers together: 32 MiB of full chunks
constexpr Duration kProgressInterval = 500ms;
constexpr Duration kCheckInterval = 20ms;  // for the end that --once and --idle-exit wait for
constexpr Duration kLastSync = 30s;        // on the way out
constexpr Duration kLastWord = 1s;
constexpr Duration kLongestWait = 1s;
constexpr Duration kTalkSpacing = 2ms;  // lines that come one by one: control links are not looked at for each
constexpr Duration kWatchInterval = 250ms;

}  // namespace

Consumer::Consumer(const ConsumerConfig& config) : config_(config), on_terminal_(::isatty(STDERR_FILENO) == 1) {}
Consumer::~Consumer() = default;

Result<std::unique_ptr<Consumer>> Consumer::open(const ConsumerConfig& config) {
  raise_descriptor_limit();
  std::unique_ptr<Consumer> consumer(new Consumer(config));
  if (auto ok = consumer->open_state(); !ok) return tl::unexpected(ok.error());
  if (auto ok = consumer->open_sinks(); !ok) return tl::unexpected(ok.error());
  if (auto ok = consumer->connect(); !ok) return tl::unexpected(ok.error());
  consumer->open_admin();
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
  const LineRules rules = config_.lines.rules(format.raw());
  for (const auto& output : config_.sinks()) {
    switch (output.kind) {
      case ConsumerConfig::Output::Kind::kStdout: {
        auto sink = std::make_unique<StdoutSink>(format, rules, config_.flush_partial);
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
        auto sink = FileSink::open(*PathTemplate::parse(output.target), format, rules, config_.rotation(), *store_);
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
    const auto multicast = config_.epgm_config();
    if (!multicast) return tl::unexpected(multicast.error());
    auto socket = EpgmSubscriber::open(context_, *multicast, kMulticastQueueMessages, config_.subscriptions());
    if (!socket) return tl::unexpected(socket.error());
    multicast_ = std::move(*socket);
    inlet_ = multicast_.get();
    log::info("listening", {{"endpoint", multicast->address}});
    if (!config_.multicast.local().value_or("").starts_with("127.")) {
      log::warn("multicast is not encrypted: anybody on the network can send and read",
                {{"endpoint", multicast->address}});
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

  for (const Endpoint& endpoint : config_.bind_endpoints()) {
    const auto data = subscriber_socket_->bind(endpoint);
    if (!data) return tl::unexpected(data.error());
    const auto control =
        control_->bind(config_.control.empty() ? control_endpoint(endpoint) : *parse_endpoint(config_.control));
    if (!control) return tl::unexpected(control.error());
    log::info("listening", {{"endpoint", *data}, {"control", *control}});
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
  if (known != controls_.end()) {
    control_->disconnect(known->second.peer);
    streams_->on_peer_down(known->second.peer, "it has another address now");
  }
  controls_[beacon.node] = {beacon.control, *peer};
}

/// Keeps the relay alive, and replaces one that is wedged.
void Consumer::watch_multicast(MonoTime now) {
  RelayProcess& relay = multicast_->relay();
  relay.turn(now);
  if (wedge_.wedged(streams_->activity(), relay.started(), now))
    relay.replace(now, "producers send and nothing arrives");
}

// ---- the loop

std::size_t Consumer::turn(MonoTime now, bool talk) {
  std::size_t work = talk ? control_->turn(now, *streams_) : 0;
  if (talk && admin_) work += admin_->turn(now);
  if (talk && subscriber_socket_) subscriber_socket_->tend(now);
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
  if (!streams_->holds_back()) {
    waiter.add_socket(multicast_ ? multicast_->native_socket() : subscriber_socket_->native_socket());
  }
  if (multicast_ && multicast_->relay().fd() >= 0) waiter.add_descriptor(multicast_->relay().fd());
  for (void* socket : control_->native_sockets()) waiter.add_socket(socket);
  if (admin_) {
    for (void* socket : admin_->native_sockets()) waiter.add_socket(socket);
  }
  MonoTime until = std::min({now + kLongestWait, streams_->due(now), control_->due()});
  if (store_) until = std::min(until, next_sync_);
  if (admin_) until = std::min(until, admin_->due());
  if (multicast_) until = std::min({until, multicast_->relay().due(now), now + kWatchInterval});
  if (retry_at_) until = std::min(until, *retry_at_);
  if (stdout_ != nullptr && !stdout_->drained()) {
    // A pipe has room as soon as one page was read: woken each time, both sides would do little else.
    if (stdout_->being_read()) {
      until = std::min<MonoTime>(until, now + 1ms);
    } else {
      waiter.add_writable(STDOUT_FILENO);
    }
  }
  if (config_.once || config_.idle_exit > 0s) until = std::min(until, next_check_);
  if (on_terminal_) until = std::min(until, next_progress_);
  waiter.wait(until - now);
  auto controls = control_->native_sockets();
  if (admin_) {
    for (void* socket : admin_->native_sockets()) controls.push_back(socket);
  }
  called_ = waiter.ready(signals.fd()) ||
            std::any_of(controls.begin(), controls.end(), [&](void* socket) { return waiter.ready(socket); });
}

bool Consumer::finished(MonoTime now) {
  if (!config_.once && config_.idle_exit == 0s) return false;
  if (now < next_check_) return false;
  next_check_ = now + kCheckInterval;
  if (now - last_data_ < config_.idle_exit || retry_at_ || !waiting_.empty()) return false;
  if (!std::all_of(sinks_.begin(), sinks_.end(), [](const auto& s) { return s->settled(); })) return false;
  return streams_->overview().settled;
}

void Consumer::show_progress(MonoTime now) {
  if (!on_terminal_ || now < next_progress_) return;
  next_progress_ = now + kProgressInterval;
  log::set_status_line(progress_.line(streams_->overview(), streams_->counters(), now));
}

int Consumer::run(StopSignals& signals) {
  last_data_ = mono_now();
  bool stopped = false;
  for (;;) {
    const MonoTime now = mono_now();
    const bool talk = called_ || now - talked_ >= kTalkSpacing || now >= control_->due();
    if (talk) talked_ = now;
    called_ = false;
    const std::size_t work = turn(now, talk);
    stopped = talk && signals.take() > 0;
    if (stopped || failed_) break;
    if (stdout_ != nullptr && stdout_->closed()) {
      log::info("the reader of standard output is gone, ending");
      break;
    }
    show_progress(now);
    if (work != 0 && !streams_->caught_up()) continue;
    if (work == 0 && finished(now)) break;
    wait(mono_now(), signals);
  }
  if (on_terminal_) log::set_status_line({});
  for (const auto& sink : sinks_) sink->finish();
  if (!failed_ && !settle_all(kLastSync, signals)) failed_ = true;
  control_->flush(kLastWord, *streams_);  // a producer may wait for the last commits
  const auto& counters = streams_->counters();
  RecordCounters records;
  for (const auto& sink : sinks_) records += sink->counters();
  log::info("consumer ended", {{"bytes", counters.bytes_delivered},
                               {"bytes_fetched", counters.bytes_fetched},
                               {"bytes_lost", counters.lost_bytes},
                               {"rejected", counters.rejected + inlet_->malformed() + control_->counters().rejected},
                               {"refused_versions", counters.refused_versions + control_->counters().refused_versions},
                               {"lines_split", records.lines_split},
                               {"lines_truncated", records.lines_truncated},
                               {"lines_skipped", records.lines_skipped},
                               {"characters_replaced", records.characters_replaced},
                               {"records_split", records.records_split},
                               {"records_filtered", records.records_filtered}});
  if (failed_) return kExitFailure;
  if (stopped && config_.once && !streams_->overview().settled) {
    log::error("stopped before everything known was delivered; a later run goes on from there");
    return kExitFailure;
  }
  return counters.lost_bytes > 0 ? kExitLoss : kExitOk;
}

}  // namespace fantail
