#include "pipeline/distributor.h"

#include <algorithm>

#include "common/base/digest.h"
#include "common/base/options.h"
#include "common/base/program.h"
#include "common/base/text.h"
#include "common/json/json.h"
#include "pipeline/greeting.h"

namespace fantail::pipeline {
namespace {

constexpr Duration kLongestWait = 1s;
constexpr Duration kLastWord = 1s;
constexpr Duration kWriteAgain = 250ms;
constexpr Duration kAcknowledging = 1s;
constexpr std::size_t kMaxTasks = 1024;
constexpr std::size_t kLetterBytes = 4096;  // of a job, and of what was said of it, in a dead letter

/// What can be put into JSON of any bytes.
std::string shown(std::string_view bytes) {
  const std::string_view text = utf8_prefix(bytes, kLetterBytes);
  return is_utf8(text) ? std::string(text) : printable(text);
}

/// What makes one run another one than the run before: its tasks, what they do, and their jobs.
Result<std::string> description_of(const std::vector<Task>& tasks) {
  Json out = Json::array();
  for (const Task& task : tasks) {
    const auto jobs = task.jobs->fingerprint();
    if (!jobs) return tl::unexpected(jobs.error());
    out.push_back({{"name", task.spec.name}, {"command", task.command}, {"after", task.spec.after}, {"jobs", *jobs}});
  }
  return to_text(out);
}

}  // namespace

Distributor::Distributor(DistributorConfig config, std::vector<Task> tasks, Hooks hooks)
    : config_(std::move(config)), tasks_(std::move(tasks)), hooks_(std::move(hooks)) {}

Distributor::~Distributor() = default;

Result<std::unique_ptr<Distributor>> Distributor::open(DistributorConfig config, std::vector<Task> tasks, Hooks hooks) {
  if (tasks.empty() || tasks.size() > kMaxTasks) {
    return fail(ErrorCode::kInvalid, "there must be 1 to " + std::to_string(kMaxTasks) + " tasks");
  }
  raise_descriptor_limit();
  std::vector<TaskSpec> specs;
  for (const Task& task : tasks) {
    if (auto ok = check_task_name(task.spec.name); !ok) return tl::unexpected(ok.error());
    specs.push_back(task.spec);
  }
  std::unique_ptr<Distributor> d(new Distributor(std::move(config), std::move(tasks), std::move(hooks)));
  auto board = JobBoard::open(std::move(specs), random_id<InstanceId>().lo);
  if (!board) return tl::unexpected(board.error());
  d->board_.emplace(std::move(*board));
  if (auto ok = d->context_.protect_by(d->config_.key_file); !ok) return tl::unexpected(ok.error());
  if (auto ok = d->open_state(); !ok) return tl::unexpected(ok.error());
  if (auto ok = d->connect(); !ok) return tl::unexpected(ok.error());
  return d;
}

Status Distributor::open_state() {
  auto state = StateDirectory::open(config_.state_dir.empty() ? default_state_directory("distributor")
                                                              : std::filesystem::path(config_.state_dir));
  if (!state) return tl::unexpected(state.error());
  state_ = std::move(*state);
  const auto description = description_of(tasks_);
  if (!description) return tl::unexpected(description.error());
  auto journal = DistributorJournal::open(*state_, to_string(random_id<InstanceId>()), *description, config_.anew);
  if (!journal) return tl::unexpected(journal.error());
  journal_.emplace(std::move(*journal));
  const MonoTime now = mono_now();
  for (const auto& [job, past] : journal_->past().troubled) {
    if (job.task >= tasks_.size()) return fail(ErrorCode::kCorrupt, "the journal speaks of a task that does not exist");
    board_->restore(job, past, now);
  }
  if (hooks_.on_dead) {
    for (const JobId job : journal_->dead()) {
      const auto letter = journal_->dead_letter(job);
      if (!letter) continue;
      const auto value = parse_json(*letter);
      hooks_.on_dead(job, value && value->is_object() ? value->value("exit", 1) : 1, *letter);
    }
  }
  metadata_ = journal_->past().metadata;
  if (!config_.wait_for_metadata) metadata_ = "null";
  if (journal_->past().completed) {
    log::info("this run was finished before; --no-resume begins it anew", {{"run", run_id()}});
  }
  return {};
}

Status Distributor::connect() {
  auto control = ControlLink::open(context_, self_as(wire::Role::kWorker, host_name() + " distributor"),
                                   {.timing = {}, .max_message_bytes = kMaxMessageBytes});
  if (!control) return tl::unexpected(control.error());
  control_ = std::move(*control);
  const auto endpoint = parse_endpoint(config_.endpoint);
  if (!endpoint) return tl::unexpected(endpoint.error());
  auto bound = control_->bind(*endpoint);
  if (!bound) return tl::unexpected(bound.error());
  address_ = std::move(*bound);
  rpc_ = std::make_unique<rpc::RpcServer>(
      *control_, [this](const rpc::Caller& caller, const wire::Request& request, std::string_view arguments) {
        on_request(caller, request.method, arguments);
      });
  rpc_->on_gone([this](const rpc::Caller& caller) {
    std::erase_if(takers_, [&](const Taker& taker) { return taker.caller == caller; });
    std::erase_if(joining_, [&](const auto& entry) { return entry.first == caller; });
  });
  CollectorLink::Run run{run_id(), {}, config_.details, journal_->past().completed};
  for (const Task& task : tasks_) run.tasks.push_back(task.spec.name);
  auto collector = CollectorLink::connect(
      context_, config_.collector, std::move(run),
      {[this](Acknowledgement ack) { acknowledged(std::move(ack)); }, [this] { begin_running(mono_now()); },
       [this] {
         for (std::uint32_t i = 0; i < tasks_.size(); ++i) {
           board_->forget_acknowledged(i);
         }
       }});
  if (!collector) return tl::unexpected(collector.error());
  collector_ = std::move(*collector);
  if (metadata_) collector_->begin(*metadata_);
  if (!endpoint->is_local() && !context_.key()) {
    log::warn("listening beyond this host without keys: anybody who reaches the port can take jobs",
              {{"endpoint", address_}});
  }
  log::info("distributor started", {{"endpoint", address_}, {"run", run_id()}, {"collector", config_.collector}});
  return {};
}

// ---- the collector

void Distributor::acknowledged(Acknowledgement ack) {
  watch_.unwatch(ack.job);
  const bool dead = journal_->is_dead(ack.job);
  if (!board_->acknowledged(ack.job)) return;
  if (dead) journal_->purged(ack.job);  // a late result after all
  const Task& task = tasks_.at(ack.job.task);
  if (task.on_acknowledged) task.on_acknowledged(ack);
  if (hooks_.on_acknowledged) hooks_.on_acknowledged(ack);
}

/// What is done is known; who has what of before will be said, or not.
void Distributor::begin_running(MonoTime now) {
  if (claims_until_) return;  // not the first time
  claims_until_ = now + config_.claim;
  for (const Task& task : tasks_) {
    if (task.initialize) task.initialize(*metadata_);
  }
  for (const auto& [job, name] : journal_->past().out) {
    if (job.task >= tasks_.size()) continue;
    Claim& claim = claims_[name];
    if (claim.id == 0) claim.id = next_worker_++;
    claim.jobs.insert(job);
    board_->hold(claim.id, job);
  }
}

// ---- handing out

bool Distributor::knows_all_jobs() const {
  return std::all_of(tasks_.begin(), tasks_.end(), [](const Task& task) { return task.jobs->complete(); });
}

std::size_t Distributor::look_for_jobs() {
  std::size_t work = 0;
  for (std::uint32_t i = 0; i < tasks_.size(); ++i) {
    JobSource& jobs = *tasks_[i].jobs;
    if (jobs.complete()) {
      board_->close(i);
      continue;
    }
    const auto more = jobs.look_on();
    if (!more) {
      failed_ = more.error();
      continue;
    }
    board_->add_jobs(i, *more);
    if (jobs.complete()) board_->close(i);
    work += *more > 0 || jobs.complete() ? 1 : 0;
  }
  return work;
}

bool Distributor::may_hand_out(MonoTime now) const {
  return running() && !stopped_ && !failed_ && !journal_->unwritten() && (!write_again_ || now >= *write_again_);
}

std::size_t Distributor::hand_out(MonoTime now) {
  std::size_t done = 0;
  if (takers_.empty() || !board_->has_jobs(now)) return 0;
  for (std::size_t n = takers_.size(); n > 0 && may_hand_out(now); --n) {
    const Taker taker = takers_.front();
    takers_.pop_front();
    const auto worker = workers_.find(taker.caller.peer);
    if (worker == workers_.end()) continue;
    if (hand_out_to(taker, worker->second, now)) {
      ++done;
    } else {
      takers_.push_back(taker);
    }
  }
  return done;
}

/// False: there is nothing for it now.
bool Distributor::hand_out_to(const Taker& taker, Worker& worker, MonoTime now) {
  const auto jobs = board_->take(worker.id, taker.count, now);
  if (jobs.empty()) return false;
  JobsMessage message;
  std::vector<JobBoard::Assignment> going;
  std::size_t bytes = 0;
  for (const auto& [job, attempt] : jobs) {
    if (bytes >= kMaxTakeBytes) {
      board_->returned(worker.id, job, now);
      continue;
    }
    auto data = tasks_[job.task].jobs->job(job.number);
    if (!data) {
      settle(job, board_->failed(worker.id, job, now), worker.name, 1, data.error().context);
      continue;
    }
    bytes += data->size();
    message.jobs.push_back({job, attempt, std::move(*data)});
    going.push_back({job, attempt});
  }
  if (going.empty()) return false;
  if (const auto ok = journal_->handed_out(worker.name, going); !ok) {
    for (const auto& [job, attempt] : going) board_->returned(worker.id, job, now);
    write_again_ = now + kWriteAgain;
    if (const auto n = write_log_.occurred(now)) {
      log::error("cannot write the journal, no jobs are handed out", {{"error", ok.error()}, {"count", *n}});
    }
    return false;
  }
  for (std::size_t i = 0; i < going.size(); ++i) watch(going[i].job, worker, i, now);
  rpc_->reply(taker.caller, message.to_json());
  return true;
}

void Distributor::settle(JobId job, JobBoard::Verdict verdict, const std::string& worker, int exit,
                         std::string_view error, double seconds) {
  if (verdict == JobBoard::Verdict::kIgnored) return;
  ++failures_;
  const auto past = board_->past(job);
  if (!past) return;
  journal_->troubled(job, *past);
  if (verdict != JobBoard::Verdict::kDead) return;
  if (const auto n = dead_log_.occurred(mono_now())) {
    log::warn("job given up", {{"job", id_of(job)},
                               {"attempts", past->attempts},
                               {"worker", worker},
                               {"exit", exit},
                               {"error", printable(error.substr(0, 200))},
                               {"count", *n}});
  }
  const auto text = job_text(job);
  const std::string letter = to_text({{"id", id_of(job)},
                                      {"task", tasks_[job.task].spec.name},
                                      {"attempts", past->attempts},
                                      {"failures", past->failures},
                                      {"crashes", past->crashes},
                                      {"worker", shown(worker)},
                                      {"started", static_cast<double>(wall_now().ns) / 1e9 - seconds},
                                      {"seconds", seconds},
                                      {"exit", exit},
                                      {"error", shown(error)},
                                      {"job", text ? shown(*text) : text.error().context},
                                      {"time", to_iso8601(wall_now())}});
  journal_->given_up(job, letter);
  if (hooks_.on_dead) hooks_.on_dead(job, exit, letter);
}

// ---- workers that hang or went away

/// It is to be ended in time, if `held_before` others that the worker has got go first.
void Distributor::watch(JobId job, const Worker& worker, std::size_t held_before, MonoTime now) {
  const Duration limit = tasks_[job.task].hard_timeout;
  if (limit == Duration{}) return;
  const auto rounds = static_cast<std::int64_t>(1 + held_before / worker.threads);
  watch_.watch(job, by_name_.at(worker.name), now + limit * rounds);
}

void Distributor::look_for_hung(MonoTime now) {
  while (const auto overdue = watch_.take_overdue(now)) {
    const auto [job, peer] = *overdue;
    const auto worker = workers_.find(peer);
    if (worker == workers_.end()) continue;
    settle(job, board_->hung(worker->second.id, job, now), worker->second.name, 1,
           "the worker did not end it in time: taken away from it");
  }
}

void Distributor::end_claims(MonoTime now) {
  if (claims_.empty() || !claims_until_ || now < *claims_until_) return;
  for (const auto& [name, claim] : claims_) {
    log::info("a worker of before has not come back", {{"peer", name}, {"jobs", claim.jobs.size()}});
    board_->released(claim.id, now);
  }
  claims_.clear();
}

void Distributor::forget_worker(PeerId peer, std::string_view reason) {
  const auto worker = workers_.extract(peer);
  if (worker.empty()) return;
  by_name_.erase(worker.mapped().name);
  std::erase_if(takers_, [&](const Taker& taker) { return taker.caller.peer == peer; });
  const MonoTime now = mono_now();
  if (worker.mapped().leaving) {
    log::info("worker left", {{"peer", worker.mapped().name}});
    // What it has sent to the collector may not have been acknowledged to us yet.
    return board_->released(worker.mapped().id, now + kAcknowledging);
  }
  const auto lost = board_->lost(worker.mapped().id, now);
  log::info("worker gone", {{"peer", worker.mapped().name}, {"reason", reason}, {"jobs", lost.size()}});
  for (const auto& [job, verdict] : lost) {
    watch_.unwatch(job);
    settle(job, verdict, worker.mapped().name, -9, "its worker went away");
  }
}

void Distributor::on_peer_down(PeerId peer, std::string_view reason) {
  rpc_->on_peer_down(peer);
  forget_worker(peer, reason);
  instances_.erase(peer);
}

void Distributor::on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) {
  rpc_->on_control(peer, kind, body, payload);
}

// ---- the loop

std::size_t Distributor::turn(MonoTime now) {
  std::size_t work = control_->turn(now, *this) + collector_->turn(now) + look_for_jobs();
  if (running()) {
    if (!joining_.empty()) {
      for (const auto& [caller, message] : std::exchange(joining_, {})) welcome(caller, message);
    }
    look_for_hung(now);
    end_claims(now);
  }
  if (journal_->unwritten() && (!write_again_ || now >= *write_again_)) {
    write_again_.reset();
    if (const auto ok = journal_->write(); !ok) {
      write_again_ = now + kWriteAgain;
      if (const auto n = write_log_.occurred(now)) {
        log::error("cannot write the journal, no jobs are handed out", {{"error", ok.error()}, {"count", *n}});
      }
    }
  }
  work += hand_out(now) + rpc_->turn();
  if (running() && !journal_->unwritten() && board_->finished() && !failed_) {
    journal_->completed();
    if (journal_->write() && journal_->sync()) collector_->finish();
    ++work;
  }
  look_for_the_end(now);
  return work;
}

void Distributor::look_for_the_end(MonoTime now) {
  if (complete()) {
    for (const Taker& taker : std::exchange(takers_, {})) rpc_->reply(taker.caller, JobsMessage{}.to_json());
    if (!end_by_) end_by_ = now + kLastWord;
    ended_ = workers_.empty() || now >= *end_by_;  // they say goodbye
  } else if (stopped_ || failed_) {
    // A run of which nothing was left when it was told to end is completed.
    const bool finishing = collector_->phase() == CollectorLink::Phase::kFinishing;
    const bool completing = !failed_ && (finishing || (running() && board_->finished()));
    ended_ = !completing && (!running() || board_->progress().handed_out == 0);
  }
}

void Distributor::add_to(Waiter& waiter) const {
  for (void* socket : control_->native_sockets()) waiter.add_socket(socket);
  collector_->add_to(waiter);
  for (const Task& task : tasks_) task.jobs->add_to(waiter);
}

MonoTime Distributor::due(MonoTime now) const {
  MonoTime until = std::min({now + kLongestWait, control_->due(), collector_->due(), watch_.due()});
  if (!rpc_->idle()) until = std::min<MonoTime>(until, now + 1ms);
  if (write_again_) until = std::min(until, *write_again_);
  if (end_by_) until = std::min(until, *end_by_);
  if (claims_until_ && !claims_.empty()) until = std::min(until, *claims_until_);
  if (const auto due = board_->due(); due && !takers_.empty()) until = std::min(until, std::max(*due, now + 1ms));
  return until;
}

void Distributor::flush() { control_->flush(kLastWord, *this); }

int Distributor::run(StopSignals& signals, Duration drain, const std::function<Then(MonoTime now)>& each_turn) {
  std::optional<MonoTime> end_at;
  while (!ended()) {
    const MonoTime now = mono_now();
    const std::size_t work = turn(now);
    if (const int stops = signals.take(); stops > 0) {
      if (stopped() || stops > 1) break;
      stop();
      end_at = now + drain;
      log::info("stopping: what is going on may take a while longer", {{"jobs", board_->progress().handed_out}});
    }
    if (end_at && now >= *end_at) break;
    if (each_turn && each_turn(now) == Then::kEnd) break;
    if (work > 0) continue;
    Waiter waiter;
    waiter.add_descriptor(signals.fd());
    add_to(waiter);
    waiter.wait(std::min(due(now), end_at.value_or(MonoTime::max())) - now);
  }
  flush();
  const auto p = board_->progress();
  if (failed_) log::error("the run cannot go on", {{"error", *failed_}});
  log::info("distributor ended",
            {{"done", p.acknowledged}, {"dead", p.dead}, {"failures", failures_}, {"complete", complete()}});
  return complete() && p.dead == 0 && board_->blocked().empty() ? kExitOk : kExitFailure;
}

}  // namespace fantail::pipeline
