#include "pipeline/collector_link.h"

#include <algorithm>
#include <utility>

#include "common/base/options.h"
#include "common/base/program.h"
#include "common/json/json.h"
#include "pipeline/greeting.h"

namespace fantail::pipeline {
namespace {

constexpr Duration kAskAgain = 250ms;
constexpr Duration kFinishPatience = 5s;
constexpr Duration kLongFinishPatience = 60s;

}  // namespace

Result<std::unique_ptr<CollectorLink>> CollectorLink::connect(Context& context, const std::string& address, Run run,
                                                              Events events) {
  auto client = rpc::RpcClient::connect(context, address, self_as(wire::Role::kClient, host_name() + " distributor"),
                                        {.timing = {}, .max_message_bytes = kMaxMessageBytes});
  if (!client) return tl::unexpected(client.error());
  std::unique_ptr<CollectorLink> link(new CollectorLink(std::move(run), std::move(events)));
  link->client_ = std::move(*client);
  if (link->run_.finished_before) link->phase_ = Phase::kFinishing;
  return link;
}

void CollectorLink::open() {
  Json names = Json::array();
  for (const std::string& task : run_.tasks) names.push_back(task);
  rpc::CallTable::Call call;
  call.method = kOpen;
  call.arguments = R"({"run":)" + json_string(run_.id) + R"(,"tasks":)" + to_text(names) + R"(,"metadata":)" +
                   metadata_.value_or("null") + "}";
  call.options = {.timeout = 30s, .repeatable = true};
  call.on_done = [this](rpc::CallResult<std::string> result) {
    asked_ = false;
    if (result) {
      phase_ = Phase::kCatchingUp;
      return;
    }
    ask_again_ = mono_now() + kAskAgain;
    if (log_.occurred(mono_now())) {
      log::warn("the run waits for its collector",
                {{"collector", client_->address()}, {"error", result.error().message}});
    }
  };
  client_->start(std::move(call));
}

void CollectorLink::follow() {
  rpc::CallTable::Call call;
  call.method = kFollow;
  call.arguments = to_text({{"run", run_.id}, {"from", told_}, {"details", run_.details}});
  call.options = {.timeout = Duration{}};
  call.on_partial = [this](std::string_view text) { on_acks(text); };
  call.on_done = [this](rpc::CallResult<std::string> result) {
    if (result || phase_ > Phase::kFollowing) return;
    asked_ = false;
    ask_again_ = mono_now() + kAskAgain;
    if (result.error().type == "rolled_back") {
      log::error("the collector lost results, their jobs are done again", {{"error", result.error().message}});
      events_.on_rolled_back();
      std::fill(told_.begin(), told_.end(), 0);
      acks_ = 0;
    } else {
      log::warn("the collector is not there any more", {{"error", result.error().message}});
    }
    phase_ = Phase::kOpening;
  };
  client_->start(std::move(call));
}

void CollectorLink::on_acks(std::string_view text) {
  const auto value = parse_json(text, kMaxMessageDepth);
  if (!value) return log::error("an acknowledgement that cannot be read", {{"error", value.error()}});
  try {
    for (const Json& of_task : value->at("acks")) {
      const auto task = of_task.at(0).get<std::uint32_t>();
      for (const Json& entry : of_task.at(1)) {
        ++told_.at(task);
        Acknowledgement ack{.ack = ++acks_, .job = {task, 0}, .worker = {}, .data = {}};
        if (entry.is_number()) {
          ack.job.number = entry;
        } else {
          ack.job.number = entry.at(0);
          if (entry.size() > 5) {
            ack.attempt = entry.at(1);
            ack.worker = entry.at(2);
            ack.started = entry.at(3);
            ack.seconds = entry.at(4);
            if (!entry.at(5).is_null()) ack.data = to_text(entry.at(5));
          }
        }
        events_.on_acknowledged(std::move(ack));
      }
    }
    if (value->at("caught_up").get<bool>() && phase_ == Phase::kCatchingUp) {
      phase_ = Phase::kFollowing;
      events_.on_caught_up();
    }
  } catch (const std::exception& e) {  // what the message has in the wrong place
    log::error("an acknowledgement that cannot be read", {{"error", Error{ErrorCode::kCorrupt, e.what()}}});
  }
}

void CollectorLink::finish() {
  phase_ = Phase::kFinishing;
  // The call that tells of acknowledgements has no end of its own.
  asked_ = false;
  ask_again_.reset();
}

void CollectorLink::tell_end() {
  rpc::CallTable::Call call;
  call.method = kFinish;
  call.arguments = to_text({{"run", run_.id}});
  // A collector that is gone has finished, if this is said again after a restart.
  call.options = {.timeout = run_.finished_before ? kFinishPatience : kLongFinishPatience, .repeatable = true};
  call.on_done = [this](rpc::CallResult<std::string> result) {
    asked_ = false;
    if (!result && result.error().kind == rpc::CallError::Kind::kRemote) {
      ask_again_ = mono_now() + kAskAgain;
      if (log_.occurred(mono_now())) {
        log::warn("the collector cannot finish the run", {{"error", result.error().message}});
      }
      if (result.error().type != "unknown_run") return;
    }
    if (!result && !run_.finished_before) {
      log::warn("the collector did not answer that it has finished the run; all results are with it",
                {{"collector", client_->address()}});
    }
    phase_ = Phase::kFinished;
  };
  client_->start(std::move(call));
}

std::size_t CollectorLink::turn(MonoTime now) {
  std::size_t work = client_->turn(now);
  if (!metadata_ || asked_ || (ask_again_ && now < *ask_again_)) return work;
  ask_again_.reset();
  asked_ = true;
  switch (phase_) {
    case Phase::kOpening: open(); break;
    case Phase::kCatchingUp: follow(); break;
    case Phase::kFinishing: tell_end(); break;
    case Phase::kFollowing:
    case Phase::kFinished: asked_ = false; return work;
  }
  return work + 1;
}

void CollectorLink::add_to(Waiter& waiter) const {
  for (void* socket : client_->native_sockets()) waiter.add_socket(socket);
}

MonoTime CollectorLink::due() const {
  return ask_again_ && !asked_ ? std::min(*ask_again_, client_->due()) : client_->due();
}

}  // namespace fantail::pipeline
