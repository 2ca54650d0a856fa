#include "common/rpc/rpc_client.h"

#include <algorithm>
#include <utility>

#include "common/base/digest.h"
#include "common/transport/waiter.h"

namespace fantail::rpc {
namespace {

constexpr Duration kLongestWait = 1s;
constexpr Duration kAway = 2s;

}  // namespace

Result<std::unique_ptr<RpcClient>> RpcClient::connect(Context& context, const std::string& address, wire::Peer self,
                                                      ControlOptions options) {
  std::unique_ptr<RpcClient> client(new RpcClient());
  client->address_ = address;
  client->instance_ = self.instance;
  auto link = ControlLink::open(context, std::move(self), options);
  if (!link) return tl::unexpected(link.error());
  client->link_ = std::move(*link);
  if (const auto peer = client->link_->connect(address); !peer) return tl::unexpected(peer.error());
  return client;
}

void RpcClient::start(CallTable::Call call) { calls_.add(std::move(call), mono_now()); }

CallResult<std::string> RpcClient::call(std::string_view method, std::string_view arguments, CallOptions options,
                                        CallTable::OnPartial on_partial, std::string type) {
  std::optional<CallResult<std::string>> result;
  CallTable::Call call{std::string(method), std::string(arguments), options, std::move(on_partial),
                       [&](CallResult<std::string> r) { result = std::move(r); }};
  call.type = std::move(type);
  start(std::move(call));
  for (;;) {
    const MonoTime now = mono_now();
    const std::size_t work = turn(now);
    if (result) return std::move(*result);
    if (work > 0) continue;
    Waiter waiter;
    for (void* socket : link_->native_sockets()) waiter.add_socket(socket);
    waiter.wait(std::min(due(), now + kLongestWait) - now, &spin_);
  }
}

bool RpcClient::send_waiting() {
  bool any = false;
  while (up_) {
    const auto number = calls_.next_unsent();
    if (!number) break;
    const CallTable::Call& call = calls_.call(*number);
    const auto timeout = std::clamp<std::int64_t>(to_milliseconds(call.options.timeout), 0, UINT32_MAX);
    const wire::Request request{*number, call.method, static_cast<std::uint32_t>(timeout), call.type};
    const auto header = encoder_.request(request, as_bytes(call.arguments));
    if (!link_->send(*up_, header, Frame::copy_of(call.arguments))) break;  // its queue is full: later
    calls_.sent(*number);
    any = true;
  }
  return any;
}

std::size_t RpcClient::turn(MonoTime now) {
  // Stopped, or busy with something else: the answers may be on their way from libzmq's thread, which was stopped, too.
  const bool was_away = now - std::exchange(last_turn_, now) >= kAway;
  if (was_away && calls_.awaits_answers()) link_->was_away(now);
  // First what came: a peer that has been silent for too long is greeted before anything is sent to it.
  std::size_t work = link_->turn(now, *this);
  if (send_waiting()) ++work;
  for (const std::uint64_t number : calls_.expire(now, address_)) {
    if (up_) link_->send(*up_, encoder_.cancel({number}));  // if it is lost, an answer comes that nobody waits for
    ++work;
  }
  return work;
}

MonoTime RpcClient::due() const {
  const MonoTime at = link_->due();
  const auto call = calls_.due();
  return call ? std::min(at, *call) : at;
}

void RpcClient::on_peer_up(PeerId peer, const wire::Peer& who) {
  up_ = peer;
  ++connections_;
  peer_ = who;
  if (other_ != nullptr) other_->on_peer_up(peer, who);
}

void RpcClient::on_peer_down(PeerId peer, std::string_view reason) {
  up_.reset();
  calls_.on_peer_down(reason);
  if (other_ != nullptr) other_->on_peer_down(peer, reason);
}

void RpcClient::on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) {
  switch (kind) {
    case wire::Kind::kReply:
      if (const auto m = wire::decode_reply(body, payload.bytes())) return calls_.on_reply(*m, payload.text());
      break;
    case wire::Kind::kFailure:
      if (const auto m = wire::decode_failure(body)) return calls_.on_failure(*m);
      break;
    case wire::Kind::kEvent:
      if (const auto m = wire::decode_event(body, payload.bytes())) {
        if (on_event_) on_event_(m->channel, payload.text());
        return;
      }
      break;
    default:
      if (other_ != nullptr) other_->on_control(peer, kind, body, std::move(payload));
      return;
  }
  ++rejected_;
}

}  // namespace fantail::rpc
