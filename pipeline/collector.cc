#include "pipeline/collector.h"

#include <algorithm>

#include "common/base/options.h"
#include "common/base/program.h"
#include "common/base/version.h"
#include "common/json/json.h"
#include "pipeline/greeting.h"
#include "pipeline/job_protocol.h"
#include "pipeline/task.h"

namespace fantail::pipeline {
namespace {

constexpr std::size_t kBuffersKept = 16;
constexpr std::uint32_t kChunkBytes = 256 * 1024;
constexpr std::uint64_t kNumbersAtATime = 8192;  // in one message to a follower
constexpr std::uint64_t kDetailsAtATime = 256;
constexpr std::size_t kMostTasks = 1024;
constexpr Duration kLongestWait = 1s;
constexpr Duration kLastWord = 1s;
constexpr Duration kUnheard = 5s;  // longer than a distributor takes to come back
constexpr Duration kLookForOld = 60s;
constexpr const char* kRunsDirectory = "runs";

/// The members of a result that an acknowledgement tells.
std::string details_of(std::uint64_t number, const std::string& line) {
  const auto value = parse_json(line, kMaxMessageDepth);
  if (!value || !value->is_object()) return "[" + std::to_string(number) + "]";
  return to_text(
      Json::array({number, value->value("attempt", 1U), value->value("worker", ""), value->value("started", 0.0),
                   value->value("seconds", 0.0), value->contains("ack") ? (*value)["ack"] : Json()}));
}

}  // namespace

Collector::Collector(CollectorConfig config, Hooks hooks)
    : config_(std::move(config)), hooks_(std::move(hooks)), pool_(kChunkBytes, kBuffersKept) {}
Collector::~Collector() = default;

Result<std::unique_ptr<Collector>> Collector::open(CollectorConfig config, Hooks hooks) {
  raise_descriptor_limit();
  std::unique_ptr<Collector> collector(new Collector(std::move(config), std::move(hooks)));
  if (auto ok = collector->context_.protect_by(collector->config_.key_file); !ok) return tl::unexpected(ok.error());
  if (const auto& output = collector->config_.output; !output.empty()) {
    if (auto ok = ResultOutput::check(output); !ok) return tl::unexpected(ok.error());
  }
  if (auto ok = collector->open_state(); !ok) return tl::unexpected(ok.error());
  if (auto ok = collector->connect(); !ok) return tl::unexpected(ok.error());
  return collector;
}

Status Collector::open_state() {
  auto state = StateDirectory::open(config_.state_dir.empty() ? default_state_directory("collector")
                                                              : std::filesystem::path(config_.state_dir));
  if (!state) return tl::unexpected(state.error());
  state_ = std::move(*state);
  const auto node = state_->node_id();
  if (!node) return tl::unexpected(node.error());
  node_ = *node;
  std::error_code ec;
  const auto directory = state_->path() / kRunsDirectory;
  std::filesystem::create_directories(directory, ec);
  if (ec) return fail_errno(ec.value(), "cannot make " + directory.string());
  for (const auto& entry : std::filesystem::directory_iterator(directory, ec)) {
    auto run = CollectedRun::open(entry.path(), sequence_);
    if (!run && run.error().code == ErrorCode::kNotFound) continue;  // killed while it was begun: nothing is in it
    if (!run) return tl::unexpected(run.error());
    const std::string id = (*run)->id();
    runs_[id] = std::move(*run);
  }
  return {};
}

Status Collector::connect() {
  wire::Peer self = self_as(wire::Role::kProducer, host_name() + " results");
  self.instance = instance_;
  self.node = node_;
  auto control = ControlLink::open(context_, self, {.timing = {}, .max_message_bytes = kMaxMessageBytes});
  if (!control) return tl::unexpected(control.error());
  control_ = std::move(*control);
  const auto endpoint = *parse_endpoint(config_.endpoint);
  auto bound = control_->bind(endpoint);
  if (!bound) return tl::unexpected(bound.error());
  address_ = std::move(*bound);
  auto broadcast = BroadcastSide::open(context_, config_.broadcast());
  if (!broadcast) return tl::unexpected(broadcast.error());
  broadcast_ = std::move(*broadcast);
  if (!broadcast_->multicast()) {
    // Where a fantail-consumer looks for the control link of what it connects to.
    const auto beside = control_->bind(control_endpoint(*parse_endpoint(broadcast_->address())));
    if (!beside) return tl::unexpected(beside.error());
  }
  PublisherConfig publishing;
  publishing.node = node_;
  publishing.instance = instance_;
  publishing.name = host_name();
  publishing.control = broadcast_->advertised(address_);
  publishing.multicast = broadcast_->multicast();
  publishing.broadcast.chunk_bytes = kChunkBytes;
  publishing.broadcast.adapt_to_loss = broadcast_->multicast();
  publishing.broadcast.rate_bytes_per_s = broadcast_->rate_bytes_per_s();
  streams_ = std::make_unique<StreamPublisher>(publishing, broadcast_->port(), *control_, pool_, ledger_, *this);
  rpc_ = std::make_unique<rpc::RpcServer>(
      *control_, [this](const rpc::Caller& caller, const wire::Request& request, std::string_view arguments) {
        on_request(caller, request.method, arguments);
      });
  rpc_->on_gone([this](const rpc::Caller& caller) { followers_.erase(caller); });
  for (auto& [id, run] : runs_) {
    publish(*run);
    // Ended between the last result and its place. A distributor may say again that this run is finished, if it was
    // not told that we know; else nobody will.
    if (!run->finished() || run->settled() || current_ != nullptr) continue;
    if (auto ok = make_current(*run); !ok) return ok;
    drain_until_ = mono_now() + config_.drain;
    unheard_until_ = mono_now() + kUnheard;
  }
  if (!endpoint.is_local() && !context_.key()) {
    log::warn("listening beyond this host without keys: anybody who reaches the port can send and read results",
              {{"endpoint", address_}});
  }
  log::info("collector started", {{"endpoint", address_}, {"publish", broadcast_->address()}, {"runs", runs_.size()}});
  return {};
}

/// What is in a journal already is fetched by who needs it.
void Collector::publish(CollectedRun& run) {
  for (std::size_t i = 0; i < run.tasks(); ++i) {
    ResultJournal& journal = run.journal(i);
    wire::StreamInfo info;
    info.stream = journal.stream();
    info.sequence = journal.sequence();
    info.topic = "results/" + journal.task();
    info.path = "/results/" + run.id() + "/" + journal.task() + ".jsonl";
    info.sent = info.head = journal.end();
    info.first_seen = wall_now();
    streams_->add(info, &journal);
    if (run.finished()) streams_->seal(journal.stream(), journal.end(), std::nullopt);
  }
}

Status Collector::make_current(CollectedRun& run) {
  output_.reset();
  drain_until_.reset();
  if (!config_.output.empty()) {
    auto output = ResultOutput::open(config_.output, run);
    if (!output) return tl::unexpected(output.error());
    output_.emplace(std::move(*output));
  }
  current_ = &run;
  return {};
}

// ---- requests

void Collector::on_request(const rpc::Caller& caller, std::string_view method, std::string_view arguments) {
  try {
    if (method == kCollect) return collect(caller, arguments);
    if (method == kOpen) return open_run(caller, arguments);
    if (method == kFollow) return follow(caller, arguments);
    if (method == kFinish) return finish(caller, arguments);
    if (method == kResult) return result(caller, arguments);
    if (method == kStatus) return status(caller);
  } catch (const Json::exception& e) {
    return rpc_->fail(caller, "bad_request", std::string(method) + ": " + e.what());
  }
  rpc_->fail(caller, "unknown_method", "method '" + printable(method) + "' not found; this is a collector of results");
}

void Collector::open_run(const rpc::Caller& caller, std::string_view arguments) {
  const auto parsed = parse_json(arguments, kMaxMessageDepth);
  if (!parsed) return rpc_->fail(caller, "bad_request", "open: " + parsed.error().context);
  const std::string id = parsed->at("run");
  const std::vector<std::string> tasks = parsed->at("tasks");
  if (!id_from_hex<StreamId>(id)) return rpc_->fail(caller, "bad_request", "open: 'run' must be 32 hexadecimal digits");
  if (tasks.empty() || tasks.size() > kMostTasks) {
    return rpc_->fail(caller, "bad_request", "open: 1 to " + std::to_string(kMostTasks) + " tasks");
  }
  for (const auto& task : tasks) {
    if (const auto ok = check_task_name(task); !ok) return rpc_->fail(caller, "bad_request", ok.error().context);
  }
  auto found = runs_.find(id);
  if (found == runs_.end()) {
    auto run = CollectedRun::begin(state_->path() / kRunsDirectory / id, tasks, sequence_);
    if (!run) {
      return rpc_->fail(caller, run.error().code == ErrorCode::kNoSpace ? "no_space" : "io", run.error().context);
    }
    found = runs_.emplace(id, std::move(*run)).first;
    publish(*found->second);
  }
  CollectedRun& run = *found->second;
  if (run.finished()) {
    // Jobs that had been given up are to be done after all.
    for (std::size_t i = 0; i < run.tasks(); ++i) streams_->remove(run.journal(i).stream());
    const auto ok = run.reopen(sequence_);
    publish(run);
    if (!ok) return rpc_->fail(caller, "io", ok.error().context);
  }
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    if (i >= run.tasks() || run.journal(i).task() != tasks[i]) {
      return rpc_->fail(caller, "bad_request", "open: this run has other tasks than when it was begun");
    }
  }
  if (current_ != &run) {
    if (const auto ok = make_current(run); !ok) return rpc_->fail(caller, "io", ok.error().context);
    if (hooks_.initialize) hooks_.initialize(to_text(parsed->value("metadata", Json())));
    log::info("run", {{"run", id}, {"results", run.count()}});
  }
  Json counts = Json::array();
  for (std::size_t i = 0; i < run.tasks(); ++i) counts.push_back(run.journal(i).count());
  rpc_->reply(caller, to_text({{"counts", counts}, {"finished", run.finished().has_value()}}));
}

/// The run's name in the first line, then results, a line each.
void Collector::collect(const rpc::Caller& caller, std::string_view arguments) {
  const auto line = [&arguments] {
    const std::size_t end = std::min(arguments.find('\n'), arguments.size());
    const std::string_view out = arguments.substr(0, end);
    arguments.remove_prefix(std::min(end + 1, arguments.size()));
    return out;
  };
  const auto found = runs_.find(std::string(line()));
  if (found == runs_.end()) {
    return rpc_->fail(caller, "unknown_run", "results of a run that this collector does not know (yet)");
  }
  CollectedRun& run = *found->second;
  Answer answer{caller};
  while (!arguments.empty()) {
    const std::string_view text = line();
    const auto value = parse_json(text, kMaxMessageDepth);
    const bool good =
        value && value->is_object() && value->contains("id") && (*value)["id"].is_string() && value->contains("result");
    const auto place = good ? run.find((*value)["id"].get_ref<const std::string&>()) : std::nullopt;
    if (!place || !text.starts_with(R"({"id":")" + (*value)["id"].get_ref<const std::string&>() + '"')) {
      return rpc_->fail(caller, "bad_request",
                        "collect: '" + printable(text.substr(0, 100)) + "' is no result of run " + run.id() +
                            (value ? "" : ": " + value.error().context));
    }
    ResultJournal& journal = run.journal(place->task);
    if (run.finished() || journal.contains(place->number)) {
      ++answer.dropped;
      ++dropped_;
      continue;
    }
    std::string with_data;
    if (hooks_.on_result) {
      const std::string data = hooks_.on_result((*value)["id"].get_ref<const std::string&>(), text);
      if (!data.empty()) with_data = std::string(text.substr(0, text.size() - 1)) + ",\"ack\":" + data + "}";
    }
    journal.add(place->number, with_data.empty() ? text : std::string_view(with_data));
    ++answer.accepted;
  }
  answers_.push_back(answer);
}

/// A call without end: what is safe, from what the caller knows on.
void Collector::follow(const rpc::Caller& caller, std::string_view arguments) {
  const auto parsed = parse_json(arguments);
  if (!parsed) return rpc_->fail(caller, "bad_request", "follow: " + parsed.error().context);
  Follower follower;
  follower.run = parsed->at("run");
  follower.told = parsed->at("from").get<std::vector<std::uint64_t>>();
  follower.details = parsed->value("details", false);
  const auto run = runs_.find(follower.run);
  if (run == runs_.end()) return rpc_->fail(caller, "unknown_run", "this collector does not know that run; open it");
  if (follower.told.size() != run->second->tasks()) {
    return rpc_->fail(caller, "bad_request", "follow: 'from' must have a number for each task");
  }
  for (std::size_t i = 0; i < follower.told.size(); ++i) {
    if (follower.told[i] > run->second->journal(i).count()) {
      return rpc_->fail(caller, "rolled_back",
                        "results that were acknowledged are lost: the system of the collector "
                        "stopped before they were on its disk");
    }
  }
  followers_[caller] = std::move(follower);
}

void Collector::finish(const rpc::Caller& caller, std::string_view arguments) {
  const auto parsed = parse_json(arguments);
  if (!parsed) return rpc_->fail(caller, "bad_request", "finish: " + parsed.error().context);
  const auto found = runs_.find(parsed->at("run").get<std::string>());
  if (found == runs_.end()) return rpc_->fail(caller, "unknown_run", "finish: this collector does not know that run");
  CollectedRun& run = *found->second;
  settle(mono_now());
  if (&run != current_) {
    if (const auto ok = make_current(run); !ok) return rpc_->fail(caller, "io", ok.error().context);
  }
  if (!run.finished()) {
    if (const auto ok = run.finish(wall_now()); !ok) return rpc_->fail(caller, "io", ok.error().context);
    for (std::size_t i = 0; i < run.tasks(); ++i) {
      streams_->advance(run.journal(i).stream(), run.journal(i).end());
      streams_->seal(run.journal(i).stream(), run.journal(i).end(), std::nullopt);
    }
    if (hooks_.on_finished) hooks_.on_finished();
    log::info("run finished", {{"run", run.id()}, {"results", run.count()}, {"dropped", dropped_}});
  } else {
    log::info("told again that a run is finished", {{"run", run.id()}});
  }
  rpc_->reply(caller, to_text({{"results", run.count()}}));
  if (&run == current_) drain_until_ = mono_now() + config_.drain;
  unheard_until_.reset();
}

void Collector::result(const rpc::Caller& caller, std::string_view arguments) {
  const auto parsed = parse_json(arguments);
  if (!parsed) return rpc_->fail(caller, "bad_request", "result: " + parsed.error().context);
  const std::string id = parsed->at("id");
  const std::string wanted = parsed->value("run", "");
  for (const auto& [name, run] : runs_) {
    if (!wanted.empty() ? name != wanted : (current_ != nullptr && run.get() != current_)) continue;
    const auto place = run->find(id);
    if (!place) continue;
    const auto line = run->journal(place->task).line(place->number);
    if (line) return rpc_->reply(caller, *line);
    return rpc_->fail(caller, line.error().code == ErrorCode::kNotFound ? "not_found" : "io", line.error().context);
  }
  rpc_->fail(caller, "not_found", "job " + printable(id) + ": is of no task that this collector knows");
}

void Collector::status(const rpc::Caller& caller) {
  Json runs = Json::array();
  for (const auto& [id, run] : runs_) {
    Json tasks = Json::object();
    for (std::size_t i = 0; i < run->tasks(); ++i) tasks[run->journal(i).task()] = run->journal(i).count();
    runs.push_back({{"run", id}, {"finished", run->finished().has_value()}, {"tasks", tasks}});
  }
  rpc_->reply(caller, to_text({{"publish", broadcast_->address()}, {"dropped", dropped_}, {"runs", runs}}));
}

// ---- the loop

/// Writes what came in this turn, then answers: what is not in its journal was not taken.
void Collector::settle(MonoTime now) {
  std::optional<Error> error;
  for (auto& [id, run] : runs_) {
    for (std::size_t i = 0; i < run->tasks(); ++i) {
      ResultJournal& journal = run->journal(i);
      if (!journal.unwritten()) continue;
      if (const auto ok = journal.write(); !ok) {
        error = ok.error();
      } else {
        streams_->advance(journal.stream(), journal.end());
      }
    }
  }
  if (error) {
    if (const auto n = write_log_.occurred(now)) {
      log::error("cannot write results, workers keep them", {{"error", *error}, {"count", *n}});
    }
  }
  for (const Answer& answer : std::exchange(answers_, {})) {
    if (error) {
      rpc_->fail(answer.caller, error->code == ErrorCode::kNoSpace ? "no_space" : "io", error->context);
    } else {
      rpc_->reply(answer.caller, to_text({{"accepted", answer.accepted}, {"dropped", answer.dropped}}));
    }
  }
}

/// One message to one follower. False: there is nothing to say, or no room for it.
bool Collector::tell(const rpc::Caller& caller, Follower& follower) {
  CollectedRun& run = *runs_.at(follower.run);
  std::string acks;
  std::uint64_t left = follower.details ? kDetailsAtATime : kNumbersAtATime;
  auto told = follower.told;
  for (std::size_t i = 0; i < run.tasks() && left > 0; ++i) {
    const ResultJournal& journal = run.journal(i);
    if (told[i] == journal.count()) continue;
    if (!acks.empty()) acks += ',';
    acks += '[' + std::to_string(i) + ",[";
    for (; left > 0 && told[i] < journal.count(); --left, ++told[i]) {
      if (acks.back() != '[') acks += ',';
      const std::uint64_t number = journal.number_at(told[i]);
      const auto line = follower.details ? journal.line(number) : Result<std::string>();
      acks += follower.details && line ? details_of(number, *line) : std::to_string(number);
    }
    acks += "]]";
  }
  if (acks.empty() && follower.begun) return false;
  bool caught_up = true;
  for (std::size_t i = 0; i < run.tasks(); ++i) caught_up = caught_up && told[i] == run.journal(i).count();
  const std::string message = R"({"acks":[)" + acks + R"(],"caught_up":)" + (caught_up ? "true}" : "false}");
  if (!rpc_->has_room(caller) || !rpc_->partial(caller, Frame::copy_of(std::string_view(message)))) return false;
  follower.begun = true;
  follower.told = std::move(told);
  return true;
}

std::size_t Collector::tell_followers() {
  std::size_t done = 0;
  for (auto& [caller, follower] : followers_) done += tell(caller, follower) ? 1 : 0;
  return done;
}

/// Consumers that are there have everything.
bool Collector::delivered() const {
  if (!streams_->everybody_knows() || !streams_->nothing_queued()) return false;
  for (std::size_t i = 0; current_ != nullptr && i < current_->tasks(); ++i) {
    const auto* info = streams_->info(current_->journal(i).stream());
    if (info == nullptr) continue;
    if (const auto has = ledger_.delivered_to(*info); has && *has < info->head) return false;
  }
  return true;
}

void Collector::look_for_the_end(MonoTime now) {
  if (now >= look_for_old_ && config_.result_ttl > Duration{}) {
    look_for_old_ = now + kLookForOld;
    remove_old(wall_now());
  }
  if (!drain_until_ || ended_) return;
  if (unheard_until_ && now < *unheard_until_) return;
  const bool written = !output_ || output_->complete();
  if (now < *drain_until_ && !(written && delivered())) return;
  if (!written) return;  // a full disk is waited for: nothing is lost
  const Duration kept = std::chrono::nanoseconds(wall_now().ns - current_->finished().value_or(WallTime{}).ns);
  if (!config_.stay && kept < config_.result_ttl) return;
  if (const auto ok = current_->settle(); !ok) {
    if (const auto n = write_log_.occurred(now)) log::error("cannot end a run", {{"error", ok.error()}, {"count", *n}});
    return;
  }
  drain_until_.reset();
  ended_ = !config_.stay;
}

void Collector::remove_old(WallTime now) {
  std::vector<std::string> old;
  for (const auto& [id, run] : runs_) {
    if (run.get() == current_ || !run->finished()) continue;
    if (std::chrono::nanoseconds(now.ns - run->finished()->ns) >= config_.result_ttl) old.push_back(id);
  }
  for (const auto& id : old) forget(id);
}

void Collector::forget(const std::string& id) {
  const auto run = std::move(runs_.extract(id).mapped());
  std::erase_if(followers_, [&](const auto& entry) { return entry.second.run == id; });
  for (std::size_t i = 0; i < run->tasks(); ++i) streams_->remove(run->journal(i).stream());
  std::error_code ec;
  std::filesystem::remove_all(run->directory(), ec);
  log::info("results removed, their time is over", {{"run", id}});
}

std::size_t Collector::turn(MonoTime now) {
  const std::size_t messages = control_->turn(now, *this);
  settle(now);
  if (broadcast_->turn(now)) streams_->on_subscription();
  std::size_t work = messages + tell_followers() + streams_->turn(now) + rpc_->turn();
  if (output_) work += output_->turn(now);
  look_for_the_end(now);
  return work;
}

void Collector::add_to(Waiter& waiter) const {
  for (void* socket : control_->native_sockets()) waiter.add_socket(socket);
  broadcast_->add_to(waiter, streams_->blocked());
}

MonoTime Collector::due(MonoTime now) {
  MonoTime until = std::min({now + kLongestWait, streams_->due(now), control_->due(), broadcast_->due(now)});
  if (!rpc_->idle()) until = std::min<MonoTime>(until, now + 1ms);
  if (output_ && !output_->complete()) until = std::min(until, std::max<MonoTime>(output_->due(), now + 1ms));
  if (drain_until_) until = std::min<MonoTime>(until, now + 20ms);
  return until;
}

/// A distributor that misses the last answer waits for it for a minute.
void Collector::flush() { control_->flush(kLastWord, *this, ControlLink::Whom::kClientsToo); }

int Collector::run(StopSignals& signals) {
  while (!failed_ && !ended_) {
    const MonoTime now = mono_now();
    const std::size_t work = turn(now);
    if (signals.take() > 0) break;
    if (work > 0) continue;
    Waiter waiter;
    waiter.add_descriptor(signals.fd());
    add_to(waiter);
    waiter.wait(due(now) - now);
  }
  settle(mono_now());
  flush();
  log::info("collector ended", {{"results", current_ == nullptr ? 0 : current_->count()}, {"dropped", dropped_}});
  return failed_ ? kExitFailure : kExitOk;
}

void Collector::on_peer_down(PeerId peer, std::string_view reason) {
  rpc_->on_peer_down(peer);
  streams_->on_peer_down(peer, reason);
}

void Collector::on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) {
  if (rpc_->on_control(peer, kind, body, payload)) return;
  streams_->on_control(peer, kind, body, std::move(payload));
}

void Collector::on_broken(StreamId stream, const Error& error) {
  log::error("a journal of results cannot be read any more, ending", {{"stream", stream}, {"error", error}});
  failed_ = true;
}

}  // namespace fantail::pipeline
