// The part of Distributor that answers requests: of workers, who join, take jobs and report, and of operators, who look
// at dead letters, set metadata and ask how it stands.
#include <algorithm>

#include "common/base/options.h"
#include "common/base/text.h"
#include "common/json/json.h"
#include "pipeline/distributor.h"

namespace fantail::pipeline {

void Distributor::on_request(const rpc::Caller& caller, std::string_view method, std::string_view arguments) {
  try {
    if (method == kTake) return take(caller, arguments);
    if (method == kReport) return report(caller, arguments);
    if (method == kJoin) return join(caller, arguments);
    if (method == kMetadata) return metadata(caller, arguments);
    if (method == kDead) return dead(caller, arguments);
    if (method == kResize) return resize(caller, arguments);
    if (method == kStatus) return status(caller);
  } catch (const Json::exception& e) {
    return rpc_->fail(caller, "bad_request", std::string(method) + ": " + e.what());
  }
  rpc_->fail(caller, "unknown_method", "method '" + printable(method) + "' not found; this is a distributor of jobs");
}

// ---- of workers

void Distributor::join(const rpc::Caller& caller, std::string_view arguments) {
  auto message = JoinMessage::from_json(arguments);
  if (!message) return rpc_->fail(caller, "bad_request", message.error().context);
  if (message->worker.empty() || message->worker.size() > wire::kMaxNameBytes || message->threads == 0) {
    return rpc_->fail(caller, "bad_request", "join: a worker has a name of 1 to 255 bytes and one thread at least");
  }
  if (running()) return welcome(caller, *message);
  joining_.emplace_back(caller, std::move(*message));
}

void Distributor::welcome(const rpc::Caller& caller, const JoinMessage& message) {
  const InstanceId instance = instances_[caller.peer];
  if (const auto same = by_name_.find(message.worker); same != by_name_.end() && same->second != caller.peer) {
    const PeerId other = same->second;
    if (workers_.at(other).instance != instance) {
      return rpc_->fail(caller, "duplicate_worker",
                        "a worker '" + printable(message.worker) + "' is here already; give this one another --name");
    }
    forget_worker(other, "it is here on another connection");
  }
  Worker& worker = workers_[caller.peer];
  worker.name = message.worker;
  worker.instance = instance;
  worker.threads = message.threads;
  by_name_[message.worker] = caller.peer;
  const auto claim = claims_.extract(message.worker);
  if (worker.id == 0) worker.id = claim.empty() ? next_worker_++ : claim.mapped().id;
  std::set<JobId> holds;
  if (message.run == run_id()) {
    for (const JobId job : message.holds) {
      if (job.task < tasks_.size()) holds.insert(job);
    }
  }
  for (const JobId job : holds) board_->hold(worker.id, job);
  if (!claim.empty()) {
    for (const JobId job : claim.mapped().jobs) {
      if (!holds.contains(job)) board_->returned(worker.id, job, mono_now());
    }
  }
  WelcomeMessage out;
  out.run = run_id();
  out.collector = config_.collector;
  out.metadata = *metadata_;
  for (const Task& task : tasks_) out.tasks.push_back({task.spec.name, task.command, task.timeout});
  rpc_->reply(caller, out.to_json());
  log::info("worker joined", {{"peer", message.worker}, {"threads", message.threads}, {"holds", holds.size()}});
}

void Distributor::take(const rpc::Caller& caller, std::string_view arguments) {
  const auto value = parse_json(arguments);
  if (!value) return rpc_->fail(caller, "bad_request", "take: " + value.error().context);
  if (!workers_.contains(caller.peer)) return rpc_->fail(caller, "not_joined", "take: join first");
  takers_.push_back({caller, std::clamp(value->at("count").get<std::uint32_t>(), 1U, kMaxTake)});
}

void Distributor::report(const rpc::Caller& caller, std::string_view arguments) {
  const auto message = ReportMessage::from_json(arguments);
  if (!message) return rpc_->fail(caller, "bad_request", message.error().context);
  const auto worker = workers_.find(caller.peer);
  if (worker == workers_.end()) return rpc_->fail(caller, "not_joined", "report: join first");
  const MonoTime now = mono_now();
  for (const auto& failure : message->failed) {
    if (failure.job.task >= tasks_.size()) continue;
    watch_.unwatch(failure.job);
    settle(failure.job, board_->failed(worker->second.id, failure.job, now), worker->second.name, failure.exit,
           failure.error, failure.seconds);
  }
  for (const JobId job : message->returned) {
    if (job.task < tasks_.size()) board_->returned(worker->second.id, job, now);
  }
  if (message->leaving) {
    worker->second.leaving = true;
    std::erase_if(takers_, [&](const Taker& taker) { return taker.caller.peer == caller.peer; });
  }
  rpc_->reply(caller, "{}");
}

// ---- of operators

void Distributor::metadata(const rpc::Caller& caller, std::string_view arguments) {
  if (!config_.wait_for_metadata) {
    return rpc_->fail(caller, "not_wanted", "this distributor was not told to wait for metadata (--metadata)");
  }
  if (const auto ok = set_metadata(arguments); !ok) return rpc_->fail(caller, "refused", ok.error().context);
  rpc_->reply(caller, "{}");
}

Status Distributor::set_metadata(std::string_view json) {
  const auto value = parse_json(json);
  if (!value) return fail(ErrorCode::kInvalid, "metadata: " + value.error().context);
  if (metadata_) return fail(ErrorCode::kInvalid, "this run has its metadata already");
  metadata_ = to_text(*value);
  journal_->metadata(*metadata_);
  collector_->begin(*metadata_);
  log::info("metadata is there", {{"bytes", metadata_->size()}});
  return {};
}

void Distributor::dead(const rpc::Caller& caller, std::string_view arguments) {
  const auto value = parse_json(arguments);
  if (!value) return rpc_->fail(caller, "bad_request", "dead: " + value.error().context);
  const std::string action = value->at("action");
  std::vector<JobId> jobs;
  for (const std::string& id : value->value("ids", std::vector<std::string>())) {
    const auto job = board_->parse(id);
    if (!job || !journal_->is_dead(*job)) {
      return rpc_->fail(caller, "not_found", "job " + printable(id) + ": is not in the dead-letter list");
    }
    jobs.push_back(*job);
  }
  if (jobs.empty()) jobs = journal_->dead();
  if (action == "list") {
    std::string out = "[";
    for (const JobId job : jobs) {
      auto letter = journal_->dead_letter(job);
      if (!letter) return rpc_->fail(caller, "io", letter.error().context);
      out += (out.size() > 1 ? "," : "") + *letter;
    }
    return rpc_->reply(caller, out + "]");
  }
  if (action != "requeue" && action != "purge") {
    return rpc_->fail(caller, "bad_request", "dead: 'action' must be list, requeue or purge");
  }
  if (action == "requeue" && collector_->phase() > CollectorLink::Phase::kFollowing) {
    return rpc_->fail(caller, "too_late", "this run is being finished");
  }
  for (const JobId job : jobs) {
    if (action == "purge") {
      journal_->purged(job);
      continue;
    }
    journal_->requeued(job);
    board_->requeue(job);
    if (hooks_.on_requeued) hooks_.on_requeued(job);
    if (const auto past = board_->past(job)) journal_->troubled(job, *past);
  }
  rpc_->reply(caller, to_text({{"jobs", jobs.size()}}));
}

void Distributor::resize(const rpc::Caller& caller, std::string_view arguments) {
  const auto value = parse_json(arguments);
  if (!value) return rpc_->fail(caller, "bad_request", "resize: " + value.error().context);
  const auto count = value->at("workers").get<std::uint32_t>();
  if (!hooks_.on_resize) {
    return rpc_->fail(caller, "not_ours",
                      "workers of this distributor were started by others; start or end them there");
  }
  hooks_.on_resize(count);
  rpc_->reply(caller, "{}");
}

void Distributor::status(const rpc::Caller& caller) {
  Json tasks = Json::array();
  for (std::uint32_t i = 0; i < tasks_.size(); ++i) {
    const auto p = board_->progress(i);
    tasks.push_back({{"task", tasks_[i].spec.name},
                     {"jobs", p.known},
                     {"complete", tasks_[i].jobs->complete()},
                     {"done", p.acknowledged},
                     {"dead", p.dead},
                     {"going_on", p.handed_out},
                     {"waiting", p.waiting}});
  }
  Json workers = Json::array();
  for (const auto& [name, peer] : by_name_) workers.push_back(name);
  rpc_->reply(caller, to_text({{"run", run_id()}, {"tasks", tasks}, {"workers", workers}, {"failures", failures_}}));
}

}  // namespace fantail::pipeline
