#include "pipeline/job_worker.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/options.h"
#include "common/base/program.h"
#include "common/base/thrown.h"
#include "common/json/json.h"
#include "pipeline/greeting.h"

namespace fantail::pipeline {
namespace {

constexpr Duration kLongestWait = 1s;
constexpr Duration kAskAgain = 250ms;
constexpr Duration kIdleInterval = 8s;      // of heartbeats to a collector that nothing is sent to
constexpr Duration kNamePatience = 5s;      // longer than it takes to notice that one is gone
constexpr Duration kGlance = 5ms;           // at what quick jobs have done meanwhile
constexpr double kQuick = 100e-6;           // seconds: threads with such jobs do not wake the loop for each
constexpr std::size_t kBatch = 256;         // jobs of that kind after which they do
constexpr double kShared = 1e-3;            // seconds: jobs from this on are asked for one by one
constexpr double kAhead = 20e-3;            // seconds of work that a thread has ahead of it
constexpr double kNeedsNoneAhead = 200e-3;  // jobs so long lose nothing by waiting for the next
constexpr std::size_t kBatchBytes = 1024 * 1024;
constexpr std::size_t kMostUnsent = 4096;  // results that wait for the collector: no more jobs are taken

void signal_fd(const UniqueFd& fd) {
  const std::uint64_t one = 1;
  // Full means that it is readable already.
  if (::write(fd.get(), &one, sizeof one) < 0) return;
}

}  // namespace

JobWorker::JobWorker(JobWorkerConfig config, Execute execute, Hooks hooks)
    : config_(std::move(config)),
      execute_(std::move(execute)),
      hooks_(std::move(hooks)),
      wake_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      stop_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

JobWorker::~JobWorker() {
  signal_fd(stop_fd_);
  for (auto& thread : threads_) thread.request_stop();
  threads_.clear();
}

Result<std::unique_ptr<JobWorker>> JobWorker::open(JobWorkerConfig config, Execute execute, Hooks hooks) {
  std::unique_ptr<JobWorker> worker(new JobWorker(std::move(config), std::move(execute), std::move(hooks)));
  if (!worker->wake_fd_ || !worker->stop_fd_) return fail_errno(errno, "an eventfd");
  if (auto ok = worker->context_.protect_by(worker->config_.key_file); !ok) return tl::unexpected(ok.error());
  if (auto ok = worker->connect(); !ok) return tl::unexpected(ok.error());
  return worker;
}

Status JobWorker::connect() {
  auto distributor = rpc::RpcClient::connect(context_, config_.distributor, self_as(wire::Role::kWorker, config_.name),
                                             {.timing = {}, .max_message_bytes = kMaxMessageBytes});
  if (!distributor) return tl::unexpected(distributor.error());
  distributor_ = std::move(*distributor);
  return {};
}

// ---- the distributor

void JobWorker::join() {
  JoinMessage message;
  message.worker = config_.name;
  message.threads = config_.threads;
  if (run_) message.run = run_->run;
  for (const auto& [job, attempt] : held_) message.holds.push_back(job);
  rpc::CallTable::Call call;
  call.method = kJoin;
  call.arguments = message.to_json();
  call.options = {.timeout = Duration{}};
  const auto connection = distributor_->connection();
  call.on_done = [this, connection](rpc::CallResult<std::string> result) {
    joining_ = false;
    ask_again_ = mono_now() + kAskAgain;
    if (!result) {
      // It may be ourselves, of before, whose end is not noticed yet.
      if (result.error().type != "duplicate_worker") return;
      if (!refused_since_) refused_since_ = mono_now();
      if (mono_now() - *refused_since_ > kNamePatience) {
        failed_ = Error{ErrorCode::kInvalid, result.error().message};
      }
      return;
    }
    auto welcome = WelcomeMessage::from_json(*result);
    if (!welcome) {
      failed_ = welcome.error();
      return;
    }
    joined_at_ = connection;
    ask_again_.reset();
    refused_since_.reset();
    if (draining_) report_.leaving = true;
    on_welcome(*welcome);
  };
  joining_ = true;
  distributor_->start(std::move(call));
}

void JobWorker::on_welcome(const WelcomeMessage& welcome) {
  if (run_ && run_->run == welcome.run) return;
  if (run_) {
    // Of a run that is not there any more nobody wants anything.
    const std::scoped_lock lock(mutex_);
    queue_.clear();
    held_.clear();
    results_.clear();
    report_ = {};
    sent_ = 0;
  }
  const bool first = !run_;
  run_ = std::make_shared<const WelcomeMessage>(welcome);
  // The collector does not care whether an idle worker lives.
  auto collector = rpc::RpcClient::connect(context_, welcome.collector, self_as(wire::Role::kClient, config_.name),
                                           {.timing = {}, .max_message_bytes = kMaxMessageBytes});
  if (!collector) {
    failed_ = collector.error();
    return;
  }
  collector_ = std::move(*collector);
  sending_ = false;
  log::info("joined", {{"distributor", config_.distributor}, {"run", run_->run}});
  if (hooks_.init_worker) hooks_.init_worker(run_->metadata);
  if (!first) return;
  for (std::uint32_t i = 0; i < config_.threads; ++i) {
    threads_.emplace_back([this, i](std::stop_token stop) { work(std::move(stop), i); });
  }
}

/// So that no thread waits for its next job, and no other worker for ours.
std::uint32_t JobWorker::wanted() const {
  const double threads = config_.threads;
  double ahead = threads;  // one each: a job takes longer than asking for one
  if (average_ == 0 || average_ >= kNeedsNoneAhead) ahead = 0;
  if (average_ > 0 && average_ < kShared) ahead = threads * kAhead / average_;
  return static_cast<std::uint32_t>(std::min(threads + std::ceil(ahead), double{kMaxTake}));
}

void JobWorker::take() {
  std::size_t queued = 0;
  std::size_t running = 0;
  {
    const std::scoped_lock lock(mutex_);
    queued = queue_.size();
    running = running_;
  }
  const std::uint32_t most = wanted();
  const std::size_t here = queued + running;
  if (here >= most || results_.size() >= kMostUnsent) return;
  // Quick jobs come in large batches, not one for each that was done; others as they are done, so that the last ones
  // are shared evenly.
  if (average_ < kShared && here > most / 2) return;
  rpc::CallTable::Call call;
  call.method = kTake;
  call.arguments = R"({"count":)" + std::to_string(most - here) + "}";
  call.options = {.timeout = Duration{}};
  call.on_done = [this](rpc::CallResult<std::string> result) {
    taking_ = false;
    if (!result) {
      if (result.error().type == "not_joined") joined_at_.reset();
      return;
    }
    auto jobs = JobsMessage::from_json(*result);
    if (!jobs) {
      failed_ = jobs.error();
      return;
    }
    on_jobs(std::move(*jobs));
  };
  taking_ = true;
  distributor_->start(std::move(call));
}

void JobWorker::on_jobs(JobsMessage message) {
  if (message.jobs.empty()) {
    over_ = true;
    return;
  }
  std::deque<Held> fresh;
  for (auto& [id, attempt, data] : message.jobs) {
    if (!run_ || id.task >= run_->tasks.size()) continue;
    // Given to us again after our connection was lost, while we are still at it.
    if (!held_.emplace(id, attempt).second) continue;
    Held held{{}, id, run_};
    held.job.task = &run_->tasks[id.task];
    held.job.id = held.job.task->name + ":" + std::to_string(id.number);
    held.job.attempt = attempt;
    held.job.data = std::move(data);
    held.job.metadata = run_->metadata;
    held.job.stop_fd = stop_fd_.get();
    if (hooks_.on_job) hooks_.on_job(held.job);
    fresh.push_back(std::move(held));
  }
  const std::scoped_lock lock(mutex_);
  if (draining_) {
    for (const Held& held : fresh) {
      report_.returned.push_back(held.id);
      held_.erase(held.id);
    }
    return;
  }
  for (Held& held : fresh) queue_.push_back(std::move(held));
  if (queue_.size() > 1) {
    there_is_work_.notify_all();
  } else {
    there_is_work_.notify_one();
  }
}

void JobWorker::report() {
  rpc::CallTable::Call call;
  call.method = kReport;
  call.arguments = report_.to_json();
  call.options = {.timeout = Duration{}};
  auto told = std::make_shared<ReportMessage>(std::exchange(report_, {}));
  call.on_done = [this, told](rpc::CallResult<std::string> result) {
    reporting_ = false;
    if (result) return;
    if (result.error().type == "not_joined") joined_at_.reset();
    report_.failed.insert(report_.failed.end(), told->failed.begin(), told->failed.end());
    report_.returned.insert(report_.returned.end(), told->returned.begin(), told->returned.end());
    report_.leaving |= told->leaving;
  };
  reporting_ = true;
  distributor_->start(std::move(call));
}

// ---- the collector

/// What threads have done since the last time.
std::size_t JobWorker::gather() {
  std::vector<Done> done;
  {
    const std::scoped_lock lock(mutex_);
    done.swap(done_);
    if (woken_) {
      std::uint64_t count = 0;
      if (::read(wake_fd_.get(), &count, sizeof count) > 0) woken_ = false;
    }
  }
  for (Done& d : done) {
    average_ = average_ == 0 ? d.seconds : average_ * 0.9 + d.seconds * 0.1;
    const auto held = held_.find(d.id);
    if (held == held_.end() || held->second != d.attempt) continue;  // of a run that is not there any more
    if (d.outcome.exit == 0) {
      results_.push_back(std::move(d));
    } else {
      // Not ours any more: it must not count twice when what we say is lost, and said again.
      held_.erase(held);
      report_.failed.push_back({d.id, d.outcome.exit, d.seconds, std::move(d.outcome.error)});
    }
  }
  return done.size();
}

void JobWorker::send_results() {
  std::string text = run_->run + "\n";
  sent_ = 0;
  for (const Done& d : results_) {
    if (text.size() >= kBatchBytes) break;
    const ResultRecord record{d.job_id, d.task, d.attempt, config_.name, d.started, d.seconds, 0, d.outcome.result};
    text += record.to_json();
    text += '\n';
    ++sent_;
  }
  rpc::CallTable::Call call;
  call.method = kCollect;
  call.arguments = std::move(text);
  call.options = {.timeout = Duration{}, .repeatable = true};
  call.on_done = [this, run = run_->run](rpc::CallResult<std::string> result) {
    if (!run_ || run_->run != run) return;
    sending_ = false;
    if (!result) {
      send_again_ = mono_now() + kAskAgain;
      const auto n = problem_log_.occurred(mono_now());
      if (n) log::warn("results are kept until the collector takes them", {{"error", result.error().message}});
      if (result.error().type == "bad_request") {
        failed_ = Error{ErrorCode::kInvalid, "the collector refuses results: " + result.error().message};
      }
      return;
    }
    for (; sent_ > 0; --sent_) {
      held_.erase(results_.front().id);
      results_.pop_front();
    }
  };
  sending_ = true;
  collector_->start(std::move(call));
}

// ---- threads

void JobWorker::work(std::stop_token stop, std::uint32_t index) {
  if (hooks_.init_thread) hooks_.init_thread(index);
  std::unique_lock lock(mutex_);
  double average = 0;
  std::size_t unsaid = 0;
  while (there_is_work_.wait(lock, stop, [this] { return !queue_.empty(); })) {
    if (stop.stop_requested()) return;
    Held held = std::move(queue_.front());
    queue_.pop_front();
    ++running_;
    lock.unlock();
    Done done{held.id, held.job.id, held.job.task->name, held.job.attempt, 0, 0, {}};
    done.started = static_cast<double>(wall_now().ns) / 1e9;
    const MonoTime begun = mono_now();
    if (held.job.task->timeout > Duration{}) held.job.deadline = begun + held.job.task->timeout;
    done.outcome = attempt(held.job);
    done.seconds = std::chrono::duration<double>(mono_now() - begun).count();
    average = average * 0.9 + done.seconds * 0.1;
    lock.lock();
    --running_;
    done_.push_back(std::move(done));
    // The loop looks by itself from time to time while threads are at quick jobs.
    if (average < kQuick && !queue_.empty() && ++unsaid < kBatch) continue;
    unsaid = 0;
    if (!woken_) {
      woken_ = true;
      signal_fd(wake_fd_);
    }
  }
}

JobOutcome JobWorker::attempt(const Job& job) {
  JobOutcome outcome;
  try {
    outcome = execute_(job);
  } catch (...) {
    const Thrown thrown = current_thrown();
    return {.exit = 1, .result = "null", .error = thrown.type + ": " + thrown.message};
  }
  if (outcome.exit == 0 && outcome.result.size() > kMaxResultBytes) {
    return {.exit = 1, .result = "null", .error = "its result is larger than 1 MiB"};
  }
  if (outcome.exit != 0) return outcome;
  const auto value = parse_json(outcome.result);
  if (!value) return {.exit = 1, .result = "null", .error = "its result is no JSON: " + value.error().context};
  if (outcome.result.find('\n') != std::string::npos) outcome.result = to_text(*value);
  return outcome;
}

// ---- the loop

std::size_t JobWorker::ask(MonoTime now) {
  std::size_t work = 0;
  const auto connection = distributor_->connection();
  const bool may_ask = !ask_again_ || now >= *ask_again_;
  if (connection && joined_at_ != connection && !joining_ && may_ask) {
    ask_again_.reset();
    join();
    ++work;
  }
  const bool joined = connection && joined_at_ == connection;
  if (joined && !report_.empty() && !reporting_) {
    report();
    ++work;
  }
  if (joined && !taking_ && !draining_ && !over_) {
    take();
    work += taking_ ? 1 : 0;
  }
  if (collector_ && !results_.empty() && !sending_ && (!send_again_ || now >= *send_again_)) {
    send_again_.reset();
    send_results();
    ++work;
  }
  return work;
}

std::size_t JobWorker::turn(MonoTime now) {
  std::size_t work = gather() + ask(now);
  work += distributor_->turn(now);
  if (collector_) {
    collector_->set_interval(results_.empty() ? kIdleInterval : HeartbeatTiming{}.interval, now);
    work += collector_->turn(now);
  }
  return work;
}

void JobWorker::add_to(Waiter& waiter) const {
  waiter.add_descriptor(wake_fd_.get());
  for (void* socket : distributor_->native_sockets()) waiter.add_socket(socket);
  if (!collector_) return;
  for (void* socket : collector_->native_sockets()) waiter.add_socket(socket);
}

MonoTime JobWorker::due(MonoTime now) {
  MonoTime until = std::min(distributor_->due(), MonoTime(now + kLongestWait));
  if (collector_) until = std::min(until, collector_->due());
  const bool waits_to_join = ask_again_ && distributor_->connection() && !joining_;
  if (waits_to_join) until = std::min(until, std::max(*ask_again_, now + 1ms));
  if (send_again_) until = std::min(until, *send_again_);
  const std::scoped_lock lock(mutex_);
  if (!done_.empty()) until = std::min<MonoTime>(until, now);
  if (running_ > 0 && average_ < kQuick) until = std::min<MonoTime>(until, now + kGlance);
  return until;
}

bool JobWorker::ended() const {
  // When the run is over every job has its result, or was given up: nobody waits for what we have.
  if (over_) return true;
  if (!draining_ || !held_.empty()) return false;
  const auto connection = distributor_->connection();
  const bool told = report_.empty() && !reporting_;
  return told || !connection || joined_at_ != connection;  // else there is nobody to be told
}

void JobWorker::drain() {
  if (std::exchange(draining_, true)) return;
  const std::scoped_lock lock(mutex_);
  for (const Held& held : queue_) {
    report_.returned.push_back(held.id);
    held_.erase(held.id);
  }
  queue_.clear();
  report_.leaving = true;
}

int JobWorker::run(StopSignals& signals, Duration drain) {
  std::optional<MonoTime> end_at;
  while (!failed_ && !ended()) {
    const MonoTime now = mono_now();
    const std::size_t work = turn(now);
    if (const int stops = signals.take(); stops > 0) {
      if (draining_ || stops > 1) break;
      this->drain();
      end_at = now + drain;
    }
    if (end_at && now >= *end_at) break;
    if (work > 0) continue;
    Waiter waiter;
    waiter.add_descriptor(signals.fd());
    add_to(waiter);
    waiter.wait(std::min(due(now), end_at.value_or(MonoTime::max())) - now);
  }
  if (failed_) log::say("fantail-pipeline: " + failed_->context);
  log::info("worker ended", {{"peer", config_.name}, {"unfinished", held_.size()}});
  return failed_ ? kExitFailure : kExitOk;
}

}  // namespace fantail::pipeline
