#include "pipeline/service.h"

#include <algorithm>

#include "common/base/program.h"
#include "common/base/version.h"
#include "common/json/json.h"
#include "common/transport/curve_key.h"
#include "pipeline/greeting.h"

namespace fantail::pipeline {
namespace {

using rpc::CallError;
constexpr Duration kLastWord = 500ms;

/// Ends a little before the caller does, so that the caller is told why.
Duration before(std::uint32_t timeout_ms) {
  const Duration whole = std::chrono::milliseconds(timeout_ms);
  return whole - std::min<Duration>(whole / 10, 50ms);
}

std::string_view type_of(const CallError& error) {
  switch (error.kind) {
    case CallError::Kind::kLost: return "lost";
    case CallError::Kind::kTimeout: return "timeout";
    default: return error.type;
  }
}

}  // namespace

std::vector<std::string> ServiceConfig::problems() const {
  std::vector<std::string> out;
  if (const auto at = parse_endpoint(endpoint); !at) out.push_back(at.error().context);
  return out;
}

Result<std::unique_ptr<Service>> Service::open(ServiceConfig config) {
  std::unique_ptr<Service> service(new Service(std::move(config)));
  if (auto ok = service->context_.protect_by(service->config_.key_file); !ok) return tl::unexpected(ok.error());
  const auto endpoint = parse_endpoint(service->config_.endpoint);
  if (!endpoint) return tl::unexpected(endpoint.error());
  auto host = rpc::WorkerHost::open(service->context_, *endpoint, self_as(wire::Role::kWorker, host_name()),
                                    {.timing = {}, .max_message_bytes = kMaxMessageBytes});
  if (!host) return tl::unexpected(host.error());
  service->host_ = std::move(*host);
  service->host_->on_request(
      [s = service.get()](const rpc::Caller& caller, const wire::Request& request, std::string_view arguments) {
        s->on_request(caller, request, arguments);
      });
  service->host_->on_gone([s = service.get()](const rpc::Caller& caller) { s->on_gone(caller); });
  service->host_->pool().on_event(
      [s = service.get()](PeerId worker, const wire::Event& event, std::string_view content) {
        s->on_event(worker, event, content);
      });
  service->host_->hooks({[](const rpc::WorkerInfo& info) {
                           std::string types;
                           for (const auto& type : info.types) types += (types.empty() ? "" : ",") + type;
                           log::info("worker ready", {{"peer", info.name}, {"types", types}, {"slots", info.slots}});
                         },
                         [](std::string_view name, std::string_view reason) {
                           log::info("worker gone", {{"peer", name}, {"reason", reason}});
                         }});
  if (!endpoint->is_local() && !service->context_.key()) {
    log::warn("listening beyond this host without keys: anybody who reaches the port can make requests and answer them",
              {{"endpoint", service->address()}});
  }
  log::info("service started", {{"endpoint", service->address()}});
  return service;
}

void Service::on_request(const rpc::Caller& caller, const wire::Request& request, std::string_view arguments) {
  if (request.method == rpc::kListenMethod) {
    listeners_.insert(caller);
    host_->server().pass_on(caller, "{}");  // from here on
    return;
  }
  rpc::CallTable::Call call;
  call.method = request.method;
  call.arguments = std::string(arguments);
  call.options.timeout = before(request.timeout_ms);
  call.on_partial = [this, caller](std::string_view part) {
    if (!host_->server().pass_on(caller, part)) too_slow_.push_back(caller);
  };
  call.on_done = [this, caller](rpc::CallResult<std::string> result) {
    calls_.erase(caller);
    if (result) {
      ++answered_;
      return host_->server().reply(caller, *result);
    }
    ++failed_;
    const CallError& error = result.error();
    host_->server().fail(caller, type_of(error), error.message, error.trace);
  };
  // It may end before start() returns.
  calls_[caller] = 0;
  const std::uint64_t number = host_->pool().start(request.type, std::move(call), mono_now());
  if (const auto found = calls_.find(caller); found != calls_.end()) found->second = number;
}

void Service::on_event(PeerId worker, const wire::Event& event, std::string_view content) {
  if (listeners_.empty()) return;
  auto value = parse_json(content);
  const std::string text = to_text({{"worker", host_->pool().name_of(worker)},
                                    {"channel", event.channel},
                                    {"sequence", event.sequence},
                                    {"content", value ? std::move(*value) : Json(std::string(content))}});
  // Who does not take them fast enough is told so, and listens no more.
  std::erase_if(listeners_, [&](const rpc::Caller& caller) { return !host_->server().pass_on(caller, text); });
}

void Service::on_gone(const rpc::Caller& caller) {
  listeners_.erase(caller);
  const auto found = calls_.find(caller);
  if (found == calls_.end()) return;
  const std::uint64_t number = found->second;
  calls_.erase(found);
  host_->pool().cancel(number);
}

std::size_t Service::turn(MonoTime now) {
  for (const auto& caller : std::exchange(too_slow_, {})) on_gone(caller);
  return host_->turn(now);
}

int Service::run(StopSignals& signals) {
  for (;;) {
    const MonoTime now = mono_now();
    const std::size_t work = turn(now);
    if (signals.take() > 0) break;
    if (work == 0) host_->wait(now, MonoTime::max(), signals.fd());
  }
  host_->flush(kLastWord);
  const auto counters = host_->pool().counters();
  log::info("service ended", {{"answered", answered_},
                              {"failed", failed_},
                              {"no_worker", counters.no_worker},
                              {"late_answers", counters.late_answers}});
  return kExitOk;
}

}  // namespace fantail::pipeline
