#include "producer/producer.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <ctime>
#include <filesystem>

#include "common/base/program.h"
#include "common/base/version.h"

namespace fantail {
namespace {

constexpr int kQueueMessages = 32;        // per slow receiver: 8 MiB of full chunks
constexpr std::size_t kBuffersKept = 48;  // idle buffers for reuse: 12 MiB of full chunks
constexpr Duration kLastWord = 1s;
constexpr Duration kLongestWait = 1s;
constexpr int kLooksRest = 20;  // times as long as a look whether it is finished took

// A file that is written line by line would cost two thread switches per line. As network cards do with interrupts,
// turns that found only a little are kept this far apart; the first line after a pause is sent at once.
constexpr Duration kTurnSpacing = 280us;
constexpr std::uint64_t kLittleBytes = 64 * 1024;
constexpr Duration kTalkSpacing = 2ms;

std::size_t descriptors_in_use() {
  std::error_code ec;
  std::size_t n = 0;
  for (std::filesystem::directory_iterator it("/proc/self/fd", ec), end; !ec && it != end; it.increment(ec)) ++n;
  return n;
}

void tell(const Registry::Opening& opening, NodeId node) {
  if (opening.lost && opening.new_node) {
    log::error(
        "the registry is damaged and no node id is left; it was set aside and a new node begun: files are sent "
        "again as new streams",
        {{"path", opening.set_aside}, {"id", short_hex(node)}});
  } else if (opening.lost && opening.set_aside.empty()) {
    log::error("the registry is gone; a new one is made of what consumers know", {{"id", short_hex(node)}});
  } else if (opening.lost) {
    log::error("the registry is damaged; it was set aside, a new one is made of what consumers know",
               {{"path", opening.set_aside}, {"id", short_hex(node)}});
  } else if (opening.new_node) {
    log::info("a new node", {{"id", to_string(node)}});
  }
}

}  // namespace

Producer::Producer(const ProducerConfig& config, StateDirectory state, Registry registry)
    : config_(config),
      state_(std::move(state)),
      pool_(config.chunk_bytes, kBuffersKept),
      registry_(std::move(registry)),
      name_(config.node.empty() ? host_name() : config.node) {}

Producer::~Producer() = default;

Result<std::unique_ptr<Producer>> Producer::open(const ProducerConfig& config) {
  raise_descriptor_limit();
  auto state = StateDirectory::open(config.state_dir.empty() ? default_state_directory("producer")
                                                             : std::filesystem::path(config.state_dir));
  if (!state) return tl::unexpected(state.error());
  Registry::Opening opening;
  auto registry = Registry::open(*state, opening);
  if (!registry) return tl::unexpected(registry.error());
  tell(opening, registry->node());
  std::unique_ptr<Producer> producer(new Producer(config, std::move(*state), std::move(*registry)));
  if (auto ok = producer->connect(); !ok) return tl::unexpected(ok.error());
  if (auto ok = producer->start(); !ok) return tl::unexpected(ok.error());
  return producer;
}

Status Producer::connect() {
  wire::Peer self;
  self.role = wire::Role::kProducer;
  self.software = std::string("fantail ") + kVersion;
  self.instance = instance_;
  self.node = registry_.node();
  self.name = name_;
  auto control = ControlLink::open(context_, self);
  if (!control) return tl::unexpected(control.error());
  control_ = std::move(*control);
  return config_.epgm() ? connect_epgm() : connect_tcp();
}

BroadcastPort& Producer::broadcast() {
  if (multicast_) return *multicast_;
  return *publisher_socket_;
}

/// Everybody joins the group; the control link is at a port of ours that beacons tell.
Status Producer::connect_epgm() {
  const auto local = config_.multicast.local();
  if (!local) return tl::unexpected(local.error());
  const auto group = config_.epgm_config();
  if (!group) return tl::unexpected(group.error());
  auto multicast = EpgmPublisher::open(context_, *group, kQueueMessages);
  if (!multicast) return tl::unexpected(multicast.error());
  multicast_ = std::move(*multicast);
  const Endpoint any_port{Endpoint::Scheme::kTcp, *local, {}};
  const auto bound = control_->bind(config_.control.empty() ? any_port : *parse_endpoint(config_.control));
  if (!bound) return tl::unexpected(bound.error());
  advertised_ = config_.advertise.empty() ? reachable_at(*bound, *local) : config_.advertise;
  log::info("listening", {{"endpoint", group->address}, {"control", *bound}, {"advertised", advertised_}});
  return {};
}

Status Producer::connect_tcp() {
  auto publisher = Publisher::open(context_, kQueueMessages);
  if (!publisher) return tl::unexpected(publisher.error());
  publisher_socket_ = std::move(*publisher);
  for (const Endpoint& endpoint : config_.data_endpoints()) {
    Endpoint control_at = control_endpoint(endpoint);
    if (!config_.control.empty()) control_at = *parse_endpoint(config_.control);
    if (config_.bind) {
      const auto data = publisher_socket_->bind(endpoint);
      if (!data) return tl::unexpected(data.error());
      const auto bound = control_->bind(control_at);
      if (!bound) return tl::unexpected(bound.error());
      log::info("listening", {{"endpoint", *data}, {"control", *bound}});
    } else {
      if (auto ok = publisher_socket_->connect(endpoint); !ok) return ok;
      const auto peer = control_->connect(control_at.to_string());
      if (!peer) return tl::unexpected(peer.error());
      log::info("connecting", {{"endpoint", endpoint.to_string()}, {"control", control_at.to_string()}});
    }
  }
  return {};
}

Status Producer::start() {
  auto discovery = Discovery::open(config_.selections(), config_.excludes(), config_.poll);
  if (!discovery) return tl::unexpected(discovery.error());
  discovery_ = std::move(*discovery);
  TailerConfig tailing = config_.tailer();
  open_admin();
  tailing.open_files = OpenFiles::limit_for(raise_descriptor_limit(), descriptors_in_use());
  tailer_ = std::make_unique<Tailer>(tailing, *discovery_, registry_, ledger_);
  PublisherConfig publishing;
  publishing.node = registry_.node();
  publishing.instance = instance_;
  publishing.name = name_;
  publishing.control = advertised_;
  publishing.multicast = config_.epgm();
  publishing.broadcast = config_.broadcast();
  streams_ = std::make_unique<StreamPublisher>(publishing, broadcast(), *control_, pool_, ledger_, *tailer_);
  if (auto ok = tailer_->start(*streams_, mono_now()); !ok) return ok;
  for (std::size_t i = 0; i < config_.files.size() && i < tailer_->matched().size(); ++i) {
    if (tailer_->matched()[i] > 0) continue;
    log::warn(config_.once ? "no file matches" : "no file matches yet, waiting for one", {{"path", config_.files[i]}});
  }
  for (const std::string& name : config_.forget) {
    if (auto ok = tailer_->forget_consumer(name); !ok) log::warn("cannot forget a consumer", {{"error", ok.error()}});
  }
  log::info("producer started", {{"node", name_}, {"id", short_hex(registry_.node())}, {"streams", tailer_->size()}});
  return {};
}

std::size_t Producer::turn(MonoTime now) {
  std::size_t work = tailer_->turn(now);
  if (!moderated_ || now - talked_ >= kTalkSpacing) talk(now, work);
  work += streams_->turn(now);
  return work;
}

void Producer::talk(MonoTime now, std::size_t& work) {
  talked_ = now;
  if (publisher_socket_ && publisher_socket_->receive_subscriptions()) {
    control_->greet_now();
    streams_->on_subscription();
  }
  if (multicast_) multicast_->relay().turn(now);
  work += control_->turn(now, *streams_);
  if (admin_) work += admin_->turn(now);
}

/// After a turn that found only a little: sleeps until the next one is due and says that it did.
bool Producer::moderate(MonoTime turn_began) {
  const std::uint64_t sent = streams_->broadcast_counters().raw_bytes_sent;
  const bool little = sent != bytes_sent_seen_ && sent - bytes_sent_seen_ < kLittleBytes && streams_->nothing_queued();
  bytes_sent_seen_ = sent;
  if (!little) return false;
  const auto until = (turn_began + kTurnSpacing).time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(until);
  const timespec at{static_cast<time_t>(seconds.count()), static_cast<long>((until - seconds).count())};
  ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr);  // woken early by a signal: just a shorter spacing
  return true;
}

void Producer::wait(MonoTime now, StopSignals& signals) {
  Waiter waiter;
  if (discovery_->fd() >= 0) waiter.add_descriptor(discovery_->fd());
  waiter.add_descriptor(signals.fd());
  if (publisher_socket_) waiter.add_socket(publisher_socket_->native_socket());
  for (void* socket : control_->native_sockets()) waiter.add_socket(socket);
  if (admin_) {
    for (void* socket : admin_->native_sockets()) waiter.add_socket(socket);
  }
  if (streams_->blocked())
    waiter.add_descriptor(multicast_ ? multicast_->mailbox_fd() : publisher_socket_->mailbox_fd());
  MonoTime until = std::min({now + kLongestWait, tailer_->due(), streams_->due(now), control_->due()});
  if (admin_) until = std::min(until, admin_->due());
  if (look_is_due_) until = std::min(until, next_look_);
  if (multicast_) {
    until = std::min(until, multicast_->relay().due(now));
    if (multicast_->relay().fd() >= 0) waiter.add_descriptor(multicast_->relay().fd());
  }
  waiter.wait(until - now);
}

bool Producer::delivered() {
  return tailer_->everything_committed() && streams_->everybody_knows() && tailer_->everything_sent();
}

bool Producer::finished() {
  if (!stopping_) return delivered() && !tailer_->removals_pending();
  // Commits are waited for where they can come from.
  if (!ledger_.anybody_connected()) return tailer_->everything_sent() && streams_->everybody_knows();
  return delivered();
}

/// With many streams the answer costs more than a turn: a look takes at most a twentieth of the time.
bool Producer::look_whether_finished(MonoTime now) {
  if (!config_.once && !stopping_) return false;
  look_is_due_ = now < next_look_;
  if (look_is_due_) return false;
  if (!stopping_ && streams_->changes() != sealed_at_ && tailer_->everything_sent()) {
    tailer_->seal_for_now();
    sealed_at_ = streams_->changes();
  }
  const MonoTime began = mono_now();  // sealing takes long, and once only
  const bool yes = finished();
  next_look_ = began + (mono_now() - began) * kLooksRest;
  return yes;
}

/// What ends it whether there is work left or not: a second signal, or --drain.
bool Producer::out_of_time(MonoTime now) const { return hurry_ || (stopping_ && now - *stopping_ >= config_.drain); }

void Producer::hear(MonoTime now, StopSignals& signals) {
  const int arrived = signals.take();
  if (arrived == 0) return;
  hurry_ = stopping_.has_value() || arrived > 1;
  if (stopping_) return;
  stopping_ = now;
  log::info("stopping", {{"drain_s", to_milliseconds(config_.drain) / 1000}});
}

int Producer::run(StopSignals& signals) {
  ::prctl(PR_SET_TIMERSLACK, 1000UL);  // ns; the default of 50 us would be a fifth of a turn's spacing
  for (;;) {
    const MonoTime now = mono_now();
    const std::size_t work = turn(now);
    if (talked_ == now) hear(now, signals);
    if (out_of_time(now) || (work == 0 && look_whether_finished(mono_now()))) break;
    moderated_ = work > 0 && moderate(now);
    if (work == 0) wait(mono_now(), signals);
  }
  tailer_->save_now();
  if (!hurry_) control_->flush(kLastWord, *streams_);
  const bool cut_short = config_.once && !delivered();
  if (cut_short) log::error("stopped before everything was committed; a later run goes on from there");
  const std::uint64_t lost = tailer_->counters().given_up_bytes;
  log::info("producer ended", {{"bytes_sent", streams_->broadcast_counters().raw_bytes_sent},
                               {"bytes_fetched", streams_->fetch_counters().bytes_served},
                               {"bytes_lost", lost},
                               {"rejected", control_->counters().rejected},
                               {"refused_versions", control_->counters().refused_versions}});
  if (cut_short) return kExitFailure;
  return config_.once && lost > 0 ? kExitLoss : kExitOk;
}

}  // namespace fantail
