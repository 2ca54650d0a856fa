#include "common/rpc/worker_host.h"

#include <algorithm>

#include "common/transport/waiter.h"

namespace fantail::rpc {
namespace {

constexpr Duration kLongestWait = 1s;

}  // namespace

WorkerHost::WorkerHost(std::unique_ptr<ControlLink> link)
    : link_(std::move(link)),
      server_(std::make_unique<RpcServer>(*link_,
                                          [this](const Caller& caller, const wire::Request& request,
                                                 std::string_view arguments) { handle(caller, request, arguments); })),
      pool_(*link_) {}

Result<std::unique_ptr<WorkerHost>> WorkerHost::open(Context& context, const Endpoint& endpoint, wire::Peer self,
                                                     ControlOptions options) {
  auto link = ControlLink::open(context, std::move(self), options);
  if (!link) return tl::unexpected(link.error());
  auto bound = (*link)->bind(endpoint);
  if (!bound) return tl::unexpected(bound.error());
  std::unique_ptr<WorkerHost> host(new WorkerHost(std::move(*link)));
  host->address_ = std::move(*bound);
  return host;
}

void WorkerHost::handle(const Caller& caller, const wire::Request& request, std::string_view arguments) {
  if (request.method == kReadyMethod) {
    auto info = WorkerInfo::from_json(arguments);
    if (!info) return server_->fail(caller, "bad_request", info.error().context);
    const auto ok = pool_.ready(caller.peer, *info);
    if (!ok) return server_->fail(caller, "duplicate_worker", ok.error().context);
    names_[caller.peer] = info->name;
    if (hooks_.on_ready) hooks_.on_ready(*info);
    return server_->reply(caller, "{}");
  }
  if (request.method == kFreedMethod) {
    const auto ok = pool_.freed(caller.peer, arguments);
    if (!ok) return server_->fail(caller, "bad_request", ok.error().context);
    return server_->reply(caller, "{}");
  }
  if (on_request_) return on_request_(caller, request, arguments);
  server_->fail(caller, "unknown_method",
                "method " + request.method + " not found: here workers are called, nobody else");
}

void WorkerHost::on_peer_up(PeerId, const wire::Peer&) {}

void WorkerHost::on_peer_down(PeerId peer, std::string_view reason) {
  server_->on_peer_down(peer);
  pool_.on_peer_down(peer, reason);
  const auto name = names_.extract(peer);
  if (!name.empty() && hooks_.on_lost) hooks_.on_lost(name.mapped(), reason);
}

void WorkerHost::on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) {
  if (server_->on_control(peer, kind, body, payload)) return;
  pool_.on_control(peer, kind, body, payload);
}

std::size_t WorkerHost::turn(MonoTime now) { return link_->turn(now, *this) + server_->turn() + pool_.turn(now); }

void WorkerHost::wait(MonoTime now, MonoTime until, int also) {
  Waiter waiter;
  for (void* socket : link_->native_sockets()) waiter.add_socket(socket);
  if (also >= 0) waiter.add_descriptor(also);
  until = std::min({until, link_->due(), MonoTime(now + kLongestWait)});
  if (const auto due = pool_.due()) until = std::min(until, *due);
  waiter.wait(until - now, &spin_);
}

CallResult<std::string> WorkerHost::call(std::string type, std::string_view method, std::string_view arguments,
                                         CallOptions options, CallTable::OnPartial on_partial) {
  std::optional<CallResult<std::string>> result;
  turn(mono_now());  // first what came: a farewell, for example
  pool_.start(std::move(type),
              {std::string(method), std::string(arguments), options, std::move(on_partial),
               [&](CallResult<std::string> r) { result = std::move(r); }},
              mono_now());
  for (;;) {
    const MonoTime now = mono_now();
    const std::size_t work = turn(now);
    if (result) return std::move(*result);
    if (work == 0) wait(now, MonoTime::max());
  }
}

bool WorkerHost::wait_for_worker(std::string_view type, Duration timeout) {
  const MonoTime until = mono_now() + timeout;
  for (;;) {
    const MonoTime now = mono_now();
    const std::size_t work = turn(now);
    if (pool_.has_worker(type)) return true;
    if (now >= until) return false;
    if (work == 0) wait(now, until);
  }
}

}  // namespace fantail::rpc
