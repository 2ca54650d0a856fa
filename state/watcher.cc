#include "state/watcher.h"

#include <algorithm>

#include "common/base/digest.h"
#include "common/base/program.h"
#include "common/base/version.h"
#include "common/json/json.h"
#include "common/transport/endpoint.h"
#include "common/transport/multicast_options.h"
#include "state/server_config.h"

namespace fantail::state {
namespace {

using rpc::CallError;

constexpr int kQueueMessages = 1000;
constexpr Duration kLongestWait = 1s;
constexpr Duration kRepairAfter = 250ms;
constexpr const char* kTopic = "state";

tl::unexpected<CallError> failed(std::string type, std::string message) {
  return tl::unexpected(CallError{CallError::Kind::kRemote, std::move(type), std::move(message), {}});
}

/// Where a client of `server` reaches what the server has bound at `bound`.
std::string seen_from(const std::string& server, const std::string& bound) {
  const auto at = parse_endpoint(bound);
  const auto through = parse_endpoint(server);
  if (!at || !through || !at->is_wildcard() || through->scheme != Endpoint::Scheme::kTcp) return bound;
  return Endpoint{Endpoint::Scheme::kTcp, through->host, at->port}.to_string();
}

}  // namespace

StateWatcher::~StateWatcher() = default;

rpc::CallResult<std::unique_ptr<StateWatcher>> StateWatcher::open(WatcherConfig config) {
  config.server = server_address(config.server);
  if (const auto problems = config.spec.problems(); !problems.empty()) return failed("bad_request", problems.front());
  if (const auto endpoint = parse_endpoint(config.server); !endpoint) {
    return failed("bad_request", endpoint.error().context);
  }
  std::unique_ptr<StateWatcher> watcher(new StateWatcher(std::move(config)));
  if (const auto ok = watcher->context_.protect_by(watcher->config_.key_file); !ok) {
    return failed("bad_request", ok.error().context);
  }
  if (auto ok = watcher->connect(); !ok) return tl::unexpected(ok.error());
  return watcher;
}

rpc::CallResult<Json> StateWatcher::call(std::string_view method, const Json& arguments,
                                         const rpc::CallTable::OnPartial& on_partial) {
  auto text =
      link_->call(method, to_text(arguments), {.timeout = config_.timeout, .repeatable = !on_partial}, on_partial);
  if (!text) {
    if (text.error().kind == CallError::Kind::kUnreachable) {
      text.error().message += unreachable_hint(context_);
    }
    return tl::unexpected(text.error());
  }
  auto parsed = parse_json(*text, kMaxMessageDepth);
  if (!parsed || !parsed->is_object()) return failed("bad_answer", std::string(method) + ": the answer cannot be read");
  return std::move(*parsed);
}

rpc::CallResult<void> StateWatcher::connect() {
  wire::Peer self;
  self.role = wire::Role::kConsumer;
  self.software = std::string("fantail ") + kVersion;
  self.instance = random_id<InstanceId>();
  self.name = host_name();
  self.topics = {kTopic};
  auto link = rpc::RpcClient::connect(context_, config_.server, std::move(self),
                                      {.timing = {}, .max_message_bytes = kMaxMessageBytes});
  if (!link) return failed("bad_request", link.error().context);
  link_ = std::move(*link);

  const auto info = call("info", Json::object());
  if (!info) return tl::unexpected(info.error());
  if (auto ok = subscribe(*info); !ok) return ok;  // before the revision is fixed, so that nothing has to be fetched

  const auto newest = info->value("revision", std::uint64_t{0});
  epoch_ = info->value("epoch", "");
  check_at_start_ = !config_.from && filter_.spec().needs_items();
  if (check_at_start_) {
    if (auto ok = take_snapshot(); !ok) return ok;
  } else {
    revision_ = !config_.from       ? newest
                : *config_.from > 0 ? *config_.from - 1
                                    : info->value("oldest", std::uint64_t{1}) - 1;
    quiet_until_ = revision_;
  }
  const auto place = call("locate", {{"revision", revision_}, {"epoch", epoch_}});
  if (!place) return tl::unexpected(place.error());
  const auto stream = id_from_hex<StreamId>(place->value("stream", ""));
  if (!stream) return failed("bad_answer", "locate: the answer cannot be read");
  following_ = *stream;
  // What the namespace was then is in the journal's own snapshot.
  in_snapshot_ = config_.from.has_value() && filter_.spec().needs_items();
  begin_ = {in_snapshot_ ? 0 : place->value("offset", std::uint64_t{0})};

  SubscriberConfig subscribing;
  subscribing.interest.topics = {kTopic};
  subscribing.repair.repair_after = kRepairAfter;
  subscribing.repair.max_jitter = multicast_ ? 50ms : 0ms;
  BroadcastInlet& inlet = multicast_ ? static_cast<BroadcastInlet&>(*multicast_) : *subscriber_;
  streams_ = std::make_unique<StreamSubscriber>(subscribing, inlet, link_->port(), *this);
  link_->pass_other_messages_to(this);
  if (const auto peer = link_->peer_id()) streams_->on_peer_up(*peer, link_->peer());
  if (check_at_start_ && revision_ == quiet_until_) {
    check_at_start_ = false;
    if (filter_.holds_now()) offer({std::nullopt, revision_, {}}, 0);
  }
  return {};
}

rpc::CallResult<void> StateWatcher::subscribe(const Json& info) {
  if (info.value("transport", "tcp") == "epgm") {
    MulticastOptions at;
    at.group = info.value("group", at.group);
    at.port = static_cast<std::uint16_t>(info.value("port", unsigned{at.port}));
    if (!config_.interface.empty()) at.interface = config_.interface;
    const auto address = at.address();
    if (!address) return failed("bad_request", "--interface: " + address.error().context);
    EpgmConfig epgm;
    epgm.address = *address;
    epgm.rate_kbit_per_s = 2'000'000;
    auto socket = EpgmSubscriber::open(context_, epgm, kQueueMessages,
                                       {std::string(wire::kBeaconSubscription), wire::topic_subscription(kTopic)});
    if (!socket) return failed("io", socket.error().context);
    multicast_ = std::move(*socket);
    return {};
  }
  auto socket = Subscriber::open(context_, kQueueMessages,
                                 {std::string(wire::kBeaconSubscription), wire::topic_subscription(kTopic)});
  if (!socket) return failed("io", socket.error().context);
  subscriber_ = std::move(*socket);
  const std::string address = seen_from(config_.server, info.value("publish", ""));
  const auto endpoint = parse_endpoint(address);
  if (!endpoint) return failed("bad_answer", "the server publishes at '" + address + "', which is no address");
  if (auto ok = subscriber_->connect(*endpoint); !ok) return failed("io", ok.error().context);
  return {};
}

/// The state to begin with, taken while it may change: what changes meanwhile is taken in before anything is told.
rpc::CallResult<void> StateWatcher::take_snapshot() {
  std::optional<std::string> damage;
  const auto answer = call("snapshot", {{"namespace", filter_.spec().name_space}}, [&](std::string_view lines) {
    while (!lines.empty()) {
      const auto end = lines.find('\n');
      const auto record = parse_line(lines.substr(0, end));
      if (!record || !std::holds_alternative<SnapshotEntry>(*record)) {
        damage = record ? "no entry" : record.error().context;
        return;
      }
      if (const auto ok = filter_.enter(std::get<SnapshotEntry>(*record)); !ok) {
        damage = ok.error().context;
        return;
      }
      lines.remove_prefix(std::min(lines.size(), end == std::string_view::npos ? lines.size() : end + 1));
    }
  });
  if (!answer) return tl::unexpected(answer.error());
  if (damage) return failed("bad_answer", "snapshot: " + *damage);
  revision_ = answer->value("begin", std::uint64_t{0});
  quiet_until_ = answer->value("end", std::uint64_t{0});
  return {};
}

// ---- following the journal

StreamReceiver::Start StateWatcher::on_stream(const NodeView&, const wire::StreamInfo& info, bool) {
  // Of a journal that is not followed yet it is not known from where on it will be.
  const FileOffset cursor = info.stream == following_ ? std::min(begin_, info.head) : info.head;
  return {cursor, {}};
}

StreamReceiver::Delivery StateWatcher::on_data(StreamId stream, FileOffset, std::span<const std::byte> bytes,
                                               WallTime) {
  if (stream != following_ || full()) {
    blocked_ = blocked_ || stream == following_;
    return Delivery::kBlocked;
  }
  unread_.erase(0, read_);
  read_ = 0;
  unread_ += as_text(bytes);
  read_on();
  return Delivery::kTaken;
}

/// Whether what is waiting has to be taken before more is read. An event with the whole namespace in it is as large as
/// that: one at a time, the others are read when it is their turn.
bool StateWatcher::full() const {
  return waiting_bytes_ >= config_.max_waiting_bytes ||
         (filter_.spec().needs_items() && !config_.live && !waiting_.empty());
}

/// Takes in the lines that are there, as far as there is room.
void StateWatcher::read_on() {
  while (!full()) {
    const auto end = unread_.find('\n', read_);
    if (end == std::string::npos) return;
    const std::string_view line = std::string_view(unread_).substr(read_, end - read_);
    read_ = end + 1;
    const auto record = parse_line(line);
    if (record) {
      take(*record, line.size());
    } else {
      failed_ = CallError{CallError::Kind::kRemote, "bad_answer", "the journal: " + record.error().context, {}};
    }
  }
}

void StateWatcher::take(const JournalRecord& record, std::size_t bytes) {
  if (const auto* entry = std::get_if<SnapshotEntry>(&record)) {
    if (!in_snapshot_) return;
    if (const auto ok = filter_.enter(*entry); !ok) {
      failed_ = CallError{CallError::Kind::kRemote, "bad_answer", "the journal: " + ok.error().context, {}};
    }
    return;
  }
  const auto* change = std::get_if<Change>(&record);
  if (change == nullptr) return;
  if (in_snapshot_ && change->revision <= revision_) {  // older than what was asked for: only the state
    (void)filter_.takes(*change);
    return;
  }
  if (change->revision <= revision_) return;  // the place was a little before
  if (change->revision != revision_ + 1) {
    failed_ = CallError{CallError::Kind::kRemote,
                        "bad_answer",
                        "revision " + std::to_string(change->revision) + " came behind " + std::to_string(revision_),
                        {}};
    return;
  }
  in_snapshot_ = false;
  revision_ = change->revision;
  const bool wanted = filter_.takes(*change);
  if (revision_ > quiet_until_ && wanted) offer({*change, revision_, {}}, bytes);
  if (check_at_start_ && revision_ >= quiet_until_) {
    check_at_start_ = false;
    if (filter_.holds_now()) offer({std::nullopt, revision_, {}}, 0);
  }
}

void StateWatcher::forget_waiting() {
  waiting_.clear();
  waiting_bytes_ = 0;
}

rpc::CallResult<void> StateWatcher::go_live() {
  const auto info = call("info", Json::object());
  if (!info) return tl::unexpected(info.error());
  quiet_until_ = std::max(quiet_until_, info->value("revision", std::uint64_t{0}));
  // What came while the answer was awaited may be newer than it.
  while (!waiting_.empty() && waiting_.front().event.revision <= quiet_until_) {
    waiting_bytes_ -= waiting_.front().bytes;
    waiting_.pop_front();
  }
  if (std::exchange(blocked_, false)) streams_->resume();
  return {};
}

void StateWatcher::offer(WatchEvent event, std::size_t bytes) {
  if (config_.live) forget_waiting();
  if (!config_.live && filter_.spec().needs_items()) event.items = filter_.items();
  waiting_.push_back({std::move(event), bytes});
  waiting_bytes_ += bytes;
}

void StateWatcher::on_loss(StreamId stream, ByteRange, wire::LossReason) {
  if (stream == following_) relocate();
}

void StateWatcher::on_sealed(StreamId stream, FileOffset) {
  if (stream == following_) ended_ = true;  // what is unread comes first
}

/// Another greeting: the journal that was followed may not be there any more, and then nothing tells of it.
void StateWatcher::on_peer_up(PeerId peer, const wire::Peer& who) {
  streams_->on_peer_up(peer, who);
  relocate();
}
void StateWatcher::on_peer_down(PeerId peer, std::string_view reason) { streams_->on_peer_down(peer, reason); }
void StateWatcher::on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) {
  streams_->on_control(peer, kind, body, std::move(payload));
}

/// The journal that was followed has ended, or is gone: asks where the next change is.
void StateWatcher::relocate() {
  following_ = {};
  ended_ = false;
  unread_.clear();
  read_ = 0;
  if (std::exchange(asking_, true)) return;
  link_->start({"locate",
                to_text({{"revision", revision_}, {"epoch", epoch_}}),
                {.timeout = config_.timeout, .repeatable = true},
                {},
                [this](rpc::CallResult<std::string> answer) {
                  asking_ = false;
                  if (!answer) {
                    if (answer.error().kind != CallError::Kind::kRemote) return;  // asked again by turn()
                    failed_ = answer.error();
                    return;
                  }
                  const auto place = parse_json(*answer);
                  const auto stream =
                      place && place->is_object() ? id_from_hex<StreamId>(place->value("stream", "")) : std::nullopt;
                  if (!stream) return;
                  following_ = *stream;
                  epoch_ = place->value("epoch", "");
                  begin_ = {place->value("offset", std::uint64_t{0})};
                  streams_->rewind(following_, begin_);
                  streams_->resume();
                }});
}

std::size_t StateWatcher::turn(MonoTime now) {
  std::size_t work = link_->turn(now);
  if (subscriber_) subscriber_->tend(now);
  if (multicast_) {
    RelayProcess& relay = multicast_->relay();
    relay.turn(now);
    if (wedge_.wedged(streams_->activity(), relay.started(), now)) {
      relay.replace(now, "the server sends and nothing arrives");
    }
  }
  read_on();
  if (ended_ && unread_.find('\n', read_) == std::string::npos) relocate();
  if (!following_ && !asking_) relocate();
  return work + streams_->turn(now);
}

rpc::CallResult<std::optional<WatchEvent>> StateWatcher::next(std::optional<MonoTime> deadline, int wake) {
  for (;;) {
    const MonoTime now = mono_now();
    const std::size_t work = turn(now);
    if (!waiting_.empty() && (!config_.live || streams_->caught_up())) {
      std::optional<WatchEvent> event = std::move(waiting_.front().event);
      waiting_bytes_ -= waiting_.front().bytes;
      waiting_.pop_front();
      if (config_.live && filter_.spec().needs_items()) event->items = filter_.items();
      if (std::exchange(blocked_, false)) streams_->resume();
      return event;
    }
    if (failed_) return tl::unexpected(*failed_);
    if (deadline && now >= *deadline) return std::nullopt;
    if (work > 0) continue;
    Waiter waiter;
    for (void* socket : link_->native_sockets()) waiter.add_socket(socket);
    waiter.add_socket(multicast_ ? multicast_->native_socket() : subscriber_->native_socket());
    if (multicast_ && multicast_->relay().fd() >= 0) waiter.add_descriptor(multicast_->relay().fd());
    if (wake >= 0) waiter.add_descriptor(wake);
    MonoTime until = std::min({now + kLongestWait, link_->due(), streams_->due(now)});
    if (multicast_) until = std::min(until, multicast_->relay().due(now));
    if (deadline) until = std::min(until, *deadline);
    waiter.wait(until - now, &spin_);
    if (wake >= 0 && waiter.ready(wake)) return std::nullopt;
  }
}

}  // namespace fantail::state
