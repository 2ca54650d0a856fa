#include "state/server.h"

#include <unistd.h>

#include <algorithm>

#include "common/base/program.h"
#include "common/base/version.h"
#include "common/json/json.h"
#include "state/client.h"

namespace fantail::state {
namespace {

constexpr int kQueueMessages = 256;  // per slow watcher; of mostly small messages
constexpr std::size_t kBuffersKept = 16;
constexpr std::uint32_t kChunkBytes = 256 * 1024;
constexpr Duration kLongestWait = 1s;
constexpr Duration kRetryJournal = 250ms;
constexpr Duration kRetryCompaction = 10s;
constexpr Duration kDefaultLease = 5s;
constexpr Duration kLastWord = 1s;
constexpr const char* kTopic = "state";
constexpr const char* kStreamPath = "/state/journal.jsonl";  // what consumers call it; its own name changes

WallTime in_wall_time(MonoTime at, MonoTime now) { return {wall_now().ns + (at - now).count()}; }

}  // namespace

StateServer::StateServer(const ServerConfig& config)
    : config_(config), store_({.max_value_bytes = config.max_value}), pool_(kChunkBytes, kBuffersKept) {
  if (config_.name.empty()) config_.name = host_name();
}
StateServer::~StateServer() = default;

Result<std::unique_ptr<StateServer>> StateServer::open(const ServerConfig& config) {
  raise_descriptor_limit();
  std::unique_ptr<StateServer> server(new StateServer(config));
  if (auto ok = server->context_.protect_by(config.key_file); !ok) return tl::unexpected(ok.error());
  if (auto ok = server->open_state(); !ok) return tl::unexpected(ok.error());
  if (auto ok = server->connect(); !ok) return tl::unexpected(ok.error());
  return server;
}

Status StateServer::open_state() {
  auto state = StateDirectory::open(config_.state_dir.empty() ? default_state_directory("state")
                                                              : std::filesystem::path(config_.state_dir));
  if (!state) return tl::unexpected(state.error());
  state_ = std::move(*state);
  const auto node = state_->node_id();
  if (!node) return tl::unexpected(node.error());
  node_ = *node;
  auto journal = Journal::open(*state_, store_);
  if (!journal) return tl::unexpected(journal.error());
  journal_ = std::move(*journal);
  // Clients of before get the time of a lease to come back.
  for (const auto& [id, lease_ms] : store_.sessions_with_keys()) {
    store_.open_session(id, lease_ms);
    const auto lease = std::chrono::milliseconds(lease_ms);
    sessions_[id] = {lease, mono_now() + lease};
  }
  return {};
}

Status StateServer::connect() {
  wire::Peer self;
  self.role = wire::Role::kProducer;
  self.software = std::string("fantail ") + kVersion;
  self.instance = instance_;
  self.node = node_;
  self.name = config_.name;
  auto control = ControlLink::open(context_, self, {.timing = {}, .max_message_bytes = kMaxMessageBytes});
  if (!control) return tl::unexpected(control.error());
  control_ = std::move(*control);
  if (auto ok = listen(); !ok) return ok;

  PublisherConfig publishing;
  publishing.node = node_;
  publishing.instance = instance_;
  publishing.name = config_.name;
  publishing.control = advertised_;
  publishing.multicast = config_.epgm();
  publishing.broadcast_backlog = false;  // a watcher begins with a snapshot or fetches history
  publishing.broadcast.chunk_bytes = kChunkBytes;
  publishing.broadcast.adapt_to_loss = config_.epgm();
  publishing.broadcast.compression.mode = CompressionConfig::Mode::kNone;
  publishing.broadcast.rate_bytes_per_s = broadcast_->rate_bytes_per_s();
  streams_ = std::make_unique<StreamPublisher>(publishing, broadcast_->port(), *control_, pool_, ledger_, *this);
  rpc_ = std::make_unique<rpc::RpcServer>(
      *control_,
      [this](const rpc::Caller& caller, const wire::Request& request, std::string_view arguments) {
        on_request(caller, request.method, arguments);
      },
      2 * config_.max_value + 16 * 1024 * 1024);
  rpc_->on_gone([this](const rpc::Caller& caller) { snapshots_->forget(caller); });
  snapshots_ = std::make_unique<SnapshotSender>(store_, *rpc_);
  if (JournalFile* previous = journal_->previous()) {
    publish(*previous);
    streams_->seal(previous->stream(), previous->end(), std::nullopt);
    previous_ = previous->stream();
  }
  publish(journal_->current());
  return {};
}

Status StateServer::listen() {
  const auto requests = control_->bind(config_.request_endpoint());
  if (!requests) return tl::unexpected(requests.error());
  auto broadcast = BroadcastSide::open(context_, {.epgm = config_.epgm(),
                                                  .publish = config_.publish_endpoint(),
                                                  .multicast = config_.multicast,
                                                  .rate_mbit = config_.rate_mbit,
                                                  .queue_messages = kQueueMessages});
  if (!broadcast) return tl::unexpected(broadcast.error());
  broadcast_ = std::move(*broadcast);
  advertised_ = broadcast_->advertised(*requests);
  if (!broadcast_->multicast()) {
    // Where a fantail-consumer looks for the control link of what it connects to.
    const auto control = control_->bind(control_endpoint(*parse_endpoint(broadcast_->address())));
    if (!control) return tl::unexpected(control.error());
  }
  log::info("listening", {{"endpoint", *requests}, {"publish", broadcast_->address()}});
  if (!config_.request_endpoint().is_local() && !context_.key()) {
    log::warn("listening beyond this host without keys: anybody who reaches the port can read and change the state",
              {{"endpoint", *requests}});
  }
  log::info(
      "state server started",
      {{"node", config_.name}, {"id", short_hex(node_)}, {"revision", store_.revision()}, {"keys", store_.keys()}});
  return {};
}

/// A journal as a stream. What is in it already is fetched by who needs it.
void StateServer::publish(JournalFile& file) {
  wire::StreamInfo info;
  info.stream = file.stream();
  info.sequence = file.sequence();
  info.topic = kTopic;
  info.path = kStreamPath;
  info.sent = info.head = file.end();
  info.first_seen = wall_now();
  streams_->add(info, &file);
}

// ---- requests

InstanceId StateServer::instance_of(PeerId peer) const {
  const auto found = peers_.find(peer);
  return found == peers_.end() ? InstanceId{} : found->second;
}

void StateServer::on_request(const rpc::Caller& caller, std::string_view method, std::string_view arguments) {
  if (StateStore::knows(method)) return operate(caller, method, arguments);
  try {
    if (method == "info") return info(caller);
    if (method == "ping") return ping(caller, arguments);
    if (method == "locate") return locate(caller, arguments);
    if (method == "snapshot") return snapshot(caller, arguments);
    if (method.starts_with("session_")) return session(caller, method, arguments);
  } catch (const Json::exception& e) {  // a member of another type than it should be
    return rpc_->fail(caller, "bad_request", std::string(method) + ": " + e.what());
  }
  rpc_->fail(caller, "unknown_method", "method '" + std::string(method) + "' not found");
}

void StateServer::operate(const rpc::Caller& caller, std::string_view method, std::string_view arguments) {
  answers_.push_back({caller, store_.apply(method, arguments, instance_of(caller.peer), wall_now())});
}

void StateServer::info(const rpc::Caller& caller) {
  const Json out = {{"pid", ::getpid()},
                    {"version", kVersion},
                    {"node", to_string(node_)},
                    {"name", config_.name},
                    {"transport", config_.transport},
                    {"publish", broadcast_->address()},
                    {"group", config_.multicast.group},
                    {"port", config_.multicast.port},
                    {"revision", store_.revision()},
                    {"oldest", oldest_revision()},
                    {"stream", to_string(journal_->current().stream())},
                    {"epoch", to_string(journal_->epoch())},
                    {"keys", store_.keys()},
                    {"bytes", store_.bytes()},
                    {"refused_keys", refused_keys()},
                    {"broadcasts", streams_->broadcast_counters().chunks_sent},
                    {"time", wall_now().ns}};
  answers_.push_back({caller, to_text(out)});
}

std::uint64_t StateServer::refused_keys() const {
  return control_->counters().refused_keys + broadcast_->refused_keys();
}

std::uint64_t StateServer::oldest_revision() {
  const JournalFile* previous = journal_->previous();
  const std::uint64_t base = journal_->current().base_revision();
  return (previous == nullptr ? base : std::min(base, previous->base_revision())) + 1;
}

void StateServer::ping(const rpc::Caller& caller, std::string_view arguments) {
  const auto parsed = parse_json(arguments.empty() ? "{}" : arguments);
  const Json payload = parsed && parsed->is_object() ? parsed->value("payload", Json()) : Json();
  rpc_->reply(caller, to_text({{"pid", ::getpid()}, {"payload", payload}, {"time", wall_now().ns}}));
}

/// Where in which stream the changes behind a revision are.
void StateServer::locate(const rpc::Caller& caller, std::string_view arguments) {
  const auto parsed = parse_json(arguments);
  const bool good =
      parsed && parsed->is_object() && parsed->contains("revision") && (*parsed)["revision"].is_number_unsigned();
  if (!good) return rpc_->fail(caller, "bad_request", "locate: 'revision' must be a whole number");
  const auto revision = (*parsed)["revision"].get<std::uint64_t>();
  if (const auto epoch = id_from_hex<EpochId>(parsed->value("epoch", ""))) {
    if (const auto common = journal_->diverged(*epoch, revision)) {
      return rpc_->fail(caller, "diverged",
                        "the server lost the changes behind revision " + std::to_string(*common) +
                            " when its system stopped, and you have seen them up to " + std::to_string(revision) +
                            "; begin again with a snapshot");
    }
  }
  JournalFile* file = &journal_->current();
  if (revision < file->base_revision() && journal_->previous() != nullptr) file = journal_->previous();
  if (revision < file->base_revision()) {
    return rpc_->fail(caller, "compacted",
                      "the changes behind revision " + std::to_string(revision) +
                          " are compacted; the oldest one left is " + std::to_string(oldest_revision()));
  }
  if (revision > store_.revision()) {
    return rpc_->fail(
        caller, "bad_request",
        "revision " + std::to_string(revision) + " is yet to come; the newest is " + std::to_string(store_.revision()));
  }
  answers_.push_back({caller, to_text({{"stream", to_string(file->stream())},
                                       {"offset", file->place_behind(revision).raw},
                                       {"epoch", to_string(journal_->epoch())},
                                       {"revision", store_.revision()}})});
}

void StateServer::snapshot(const rpc::Caller& caller, std::string_view arguments) {
  const auto parsed = parse_json(arguments.empty() ? "{}" : arguments);
  if (!parsed || !parsed->is_object())
    return rpc_->fail(caller, "bad_request", "snapshot: arguments must be an object");
  snapshots_->start(caller, parsed->value("namespace", ""), parsed->value("prefix", ""));
}

void StateServer::session(const rpc::Caller& caller, std::string_view method, std::string_view arguments) {
  const auto parsed = parse_json(arguments.empty() ? "{}" : arguments);
  if (!parsed || !parsed->is_object()) return rpc_->fail(caller, "bad_request", "arguments must be an object");
  if (method == "session_open") {
    const auto lease = std::chrono::milliseconds(parsed->value("lease_ms", to_milliseconds(kDefaultLease)));
    if (lease < 100ms || lease > 24h) {
      return rpc_->fail(caller, "bad_request", "'lease_ms' must be from 100 to 86400000");
    }
    const auto id = random_id<SessionId>();
    sessions_[id] = {lease, mono_now() + lease};
    store_.open_session(id, static_cast<std::uint32_t>(lease.count()));
    return rpc_->reply(caller, to_text({{"session", to_string(id)}, {"lease_ms", lease.count()}}));
  }
  const auto id = id_from_hex<SessionId>(parsed->value("session", ""));
  const auto known = id ? sessions_.find(*id) : sessions_.end();
  if (known == sessions_.end()) {
    return rpc_->fail(caller, "session_unknown", "this session is not open, or was not renewed in time; open another");
  }
  if (method == "session_renew") {
    known->second.until = mono_now() + known->second.lease;
    return rpc_->reply(caller, to_text({{"lease_ms", to_milliseconds(known->second.lease)}}));
  }
  if (method == "session_close") {
    sessions_.erase(known);
    store_.close_session(*id, wall_now());
    answers_.push_back({caller, std::string("{}")});
    return;
  }
  rpc_->fail(caller, "unknown_method", "method '" + std::string(method) + "' not found");
}

void StateServer::end_sessions(MonoTime now) {
  for (auto it = sessions_.begin(); it != sessions_.end();) {
    if (it->second.until > now) {
      ++it;
      continue;
    }
    store_.close_session(it->first, wall_now());
    it = sessions_.erase(it);
  }
}

// ---- the loop

/// Makes durable what this turn changed, then answers and broadcasts. What the journal does not take did not happen.
void StateServer::settle(MonoTime now) {
  std::vector<Change>& changes = changes_;
  store_.take_changes(changes);
  if (!changes.empty()) {
    const auto ok = journal_->commit(changes, config_.how_durable());
    if (!ok) {
      store_.undo(changes);
      settle_again_ = now + kRetryJournal;
      if (const auto n = journal_log_.occurred(now)) {
        log::error("cannot write the journal, changes are refused", {{"error", ok.error()}, {"count", *n}});
      }
      // Later answers of this turn may have seen what is undone now.
      for (Answer& answer : answers_) {
        answer.result = tl::unexpected(
            OpError{ok.error().code == ErrorCode::kNoSpace ? "no_space" : "io",
                    "the server cannot write its journal (" + ok.error().context + "); nothing was changed"});
      }
    } else {
      if (config_.how_durable() != Durability::kNone) {
        streams_->advance(journal_->current().stream(), journal_->current().end());
      }
    }
  }
  for (const Answer& answer : answers_) {
    if (answer.result) {
      rpc_->reply(answer.caller, *answer.result);
    } else {
      rpc_->fail(answer.caller, answer.result.error().type, answer.result.error().message);
    }
  }
  answers_.clear();
  // Without durability the journal is written when there is time for it, and broadcast then.
  if (journal_->unwritten() && now >= settle_again_) {
    if (const auto ok = journal_->flush(); !ok) {
      settle_again_ = now + kRetryJournal;
      if (const auto n = journal_log_.occurred(now)) {
        log::error("cannot write the journal, trying again", {{"error", ok.error()}, {"count", *n}});
      }
    } else {
      streams_->advance(journal_->current().stream(), journal_->current().end());
    }
  }
}

std::size_t StateServer::compact(MonoTime now) {
  if (!journal_->compacting()) {
    const std::uint64_t since = journal_->current().end() - journal_->current().snapshot_end();
    if (since < config_.compact_at || now < compact_again_) return 0;
    if (const auto ok = journal_->begin_compaction(store_); !ok) {
      compact_again_ = now + kRetryCompaction;
      log::error("cannot compact the journal", {{"error", ok.error()}});
      return 0;
    }
  }
  // Its files change places when it is complete.
  const std::optional<StreamId> before = previous_;
  const auto done = journal_->compact_piece(store_);
  if (!done) {
    compact_again_ = now + kRetryCompaction;
    log::error("cannot compact the journal", {{"error", done.error()}});
    return 0;
  }
  if (!*done) return 1;
  JournalFile& old = *journal_->previous();
  streams_->advance(old.stream(), old.end());
  streams_->seal(old.stream(), old.end(), std::nullopt);
  publish(journal_->current());
  if (before) streams_->remove(*before);
  previous_ = old.stream();
  log::info("journal compacted", {{"stream", journal_->current().stream()},
                                  {"revision", store_.revision()},
                                  {"bytes", journal_->current().end().raw}});
  return 1;
}

/// Returns how much was done that may have more behind it. Requests are not counted: wait() sees those that are left.
std::size_t StateServer::turn(MonoTime now) {
  control_->turn(now, *this);
  if (now >= settle_again_) {
    end_sessions(now);
    store_.expire(wall_now());
  }
  settle(now);
  if (broadcast_->turn(now)) streams_->on_subscription();
  return streams_->turn(now) + compact(now) + snapshots_->turn() + rpc_->turn();
}

void StateServer::wait(MonoTime now, StopSignals& signals) {
  Waiter waiter;
  waiter.add_descriptor(signals.fd());
  for (void* socket : control_->native_sockets()) waiter.add_socket(socket);
  broadcast_->add_to(waiter, streams_->blocked());
  MonoTime until = std::min({now + kLongestWait, streams_->due(now), control_->due(), broadcast_->due(now)});
  for (const auto& [id, session] : sessions_) until = std::min(until, session.until);
  if (const auto due = store_.due()) {
    until = std::min(
        until, std::max(now, settle_again_) + Duration(std::max<std::int64_t>(due->ns - in_wall_time(now, now).ns, 0)));
  }
  if (!rpc_->idle() || !snapshots_->idle()) until = std::min<MonoTime>(until, now + 1ms);
  if (settle_again_ > now) until = std::min(until, settle_again_);
  // With more than one request at a time the processor is better left to libzmq: what comes meanwhile is one turn.
  const std::uint64_t requests = rpc_->counters().requests;
  waiter.wait(until - now, requests - std::exchange(requests_before_, requests) == 1 ? &spin_ : nullptr);
}

int StateServer::run(StopSignals& signals) {
  while (!failed_) {
    const MonoTime now = mono_now();
    const std::size_t work = turn(now);
    if (signals.take() > 0) break;
    if (work == 0) wait(mono_now(), signals);
  }
  settle(mono_now());
  if (const auto ok = journal_->flush(); !ok) {
    log::error("cannot write the journal at the end", {{"error", ok.error()}});
    failed_ = true;
  }
  if (const auto ok = journal_->current().file().sync(); !ok)
    log::warn("cannot sync the journal", {{"error", ok.error()}});
  control_->flush(kLastWord, *this);
  log::info("state server ended", {{"revision", store_.revision()},
                                   {"requests", rpc_->counters().requests},
                                   {"failures", rpc_->counters().failures},
                                   {"rejected", rpc_->counters().rejected + control_->counters().rejected},
                                   {"refused_keys", refused_keys()},
                                   {"refused_versions", control_->counters().refused_versions}});
  return failed_ ? kExitFailure : kExitOk;
}

// ---- links

void StateServer::on_peer_up(PeerId peer, const wire::Peer& who) {
  peers_[peer] = who.instance;
  streams_->on_peer_up(peer, who);
}

void StateServer::on_peer_down(PeerId peer, std::string_view reason) {
  peers_.erase(peer);
  rpc_->on_peer_down(peer);
  streams_->on_peer_down(peer, reason);
}

void StateServer::on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) {
  if (rpc_->on_control(peer, kind, body, payload)) return;
  streams_->on_control(peer, kind, body, std::move(payload));
}

void StateServer::on_broken(StreamId stream, const Error& error) {
  log::error("the journal cannot be read any more, ending", {{"stream", stream}, {"error", error}});
  failed_ = true;
}

}  // namespace fantail::state
