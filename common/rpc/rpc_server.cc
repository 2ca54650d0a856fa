#include "common/rpc/rpc_server.h"

#include <utility>
#include <vector>

#include "common/base/digest.h"
#include "common/base/text.h"

namespace fantail::rpc {
namespace {

// One peer can have so many requests open; more is refused, because each costs memory until it is answered.
constexpr std::size_t kMaxOpenRequests = 4096;
constexpr std::size_t kMostFailureBytes = wire::kMaxHeaderBytes / 4;  // of its message, and of its trace

}  // namespace

bool RpcServer::send_reply(PeerId peer, const wire::Reply& reply, Frame result) {
  const auto header = encoder_.reply(reply, result.bytes());
  return control_.send(peer, header, std::move(result));
}

bool RpcServer::transmit(PeerId peer, const Answer& answer) {
  if (answer.failure) return control_.send(peer, encoder_.failure(*answer.failure));
  return send_reply(peer, {answer.request, answer.sequence, answer.partial}, Frame::copy_of(answer.result));
}

void RpcServer::answer(const Caller& caller, std::string_view result, std::optional<wire::Failure> failure) {
  const auto peer = peers_.find(caller.peer);
  if (peer == peers_.end()) return;
  const auto open = peer->second.open.find(caller.request);
  if (open == peer->second.open.end()) return;
  if (failure) ++counters_.failures;
  const std::uint32_t sequence = open->second;
  peer->second.open.erase(open);
  if (peer->second.waiting.empty()) {
    const bool sent = failure ? control_.send(caller.peer, encoder_.failure(*failure))
                              : send_reply(caller.peer, {caller.request, sequence, false}, Frame::copy_of(result));
    if (sent) return;
  }
  if (peer->second.waiting_bytes + result.size() > waiting_bytes_) {
    ++counters_.dropped_answers;
    return;
  }
  peer->second.waiting_bytes += result.size();
  peer->second.waiting.push_back({caller.request, sequence, false, std::move(failure), std::string(result)});
  blocked_.insert(caller.peer);
}

void RpcServer::reply(const Caller& caller, std::string_view result) { answer(caller, result, std::nullopt); }

void RpcServer::fail(const Caller& caller, std::string_view type, std::string_view message, std::string_view trace) {
  // A failure is a header, and whoever gets one that is too large throws it away: nobody would be told.
  answer(caller, {},
         wire::Failure{caller.request, std::string(utf8_prefix(type, wire::kMaxNameBytes)),
                       std::string(utf8_prefix(message, kMostFailureBytes)),
                       std::string(utf8_prefix(trace, kMostFailureBytes))});
}

bool RpcServer::has_room(const Caller& caller) const {
  const auto peer = peers_.find(caller.peer);
  return peer == peers_.end() || peer->second.waiting.empty();
}

bool RpcServer::partial(const Caller& caller, Frame result) {
  const auto peer = peers_.find(caller.peer);
  if (peer == peers_.end()) return true;  // nobody is there any more: gone, like a message on its way
  const auto open = peer->second.open.find(caller.request);
  if (open == peer->second.open.end()) return true;
  if (!peer->second.waiting.empty()) return false;
  if (!send_reply(caller.peer, {caller.request, open->second, true}, std::move(result))) return false;
  ++open->second;
  return true;
}

bool RpcServer::pass_on(const Caller& caller, std::string_view part) {
  if (partial(caller, Frame::copy_of(part))) return true;
  Peer& peer = peers_.at(caller.peer);
  if (peer.waiting_bytes + part.size() > waiting_bytes_) {
    fail(caller, "too_slow", "the caller does not take its partial answers fast enough");
    return false;
  }
  peer.waiting_bytes += part.size();
  peer.waiting.push_back({caller.request, peer.open.at(caller.request)++, true, std::nullopt, std::string(part)});
  blocked_.insert(caller.peer);
  return true;
}

bool RpcServer::emit(PeerId peer, const std::string& channel, std::string_view content) {
  auto& sequence = peers_[peer].events[channel];
  if (!control_.send(peer, encoder_.event({channel, sequence + 1}, as_bytes(content)), Frame::copy_of(content))) {
    return false;
  }
  ++sequence;
  return true;
}

void RpcServer::reject(const Error& error) {
  ++counters_.rejected;
  if (const auto n = reject_log_.occurred(mono_now())) {
    log::warn("rejected requests", {{"error", error}, {"count", *n}});
  }
}

bool RpcServer::on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, const Frame& payload) {
  if (kind == wire::Kind::kRequest) {
    const auto request = wire::decode_request(body, payload.bytes());
    if (!request) {
      reject(request.error());
      if (const auto number = wire::request_number(body)) {
        control_.send(peer, encoder_.failure({*number, "bad_request", request.error().context, {}}));
      }
      return true;
    }
    ++counters_.requests;
    Peer& state = peers_[peer];
    const Caller caller{peer, request->request};
    const bool room = state.open.size() < kMaxOpenRequests;
    if (!state.open.emplace(request->request, 0).second) return true;  // repeated: it will be answered once
    if (!room) {
      fail(caller, "too_many_requests", std::to_string(kMaxOpenRequests) + " requests are open; wait for answers");
      return true;
    }
    handler_(caller, *request, payload.text());
    return true;
  }
  if (kind == wire::Kind::kCancel) {
    const auto cancel = wire::decode_cancel(body);
    if (!cancel) {
      reject(cancel.error());
      return true;
    }
    const auto state = peers_.find(peer);
    if (state != peers_.end() && state->second.open.erase(cancel->request) > 0 && on_gone_) {
      on_gone_({peer, cancel->request});
    }
    return true;
  }
  return false;
}

void RpcServer::on_peer_down(PeerId peer) {
  blocked_.erase(peer);
  const auto found = peers_.find(peer);
  if (found == peers_.end()) return;
  const Peer gone = std::move(found->second);
  peers_.erase(found);
  if (!on_gone_) return;
  for (const auto& [request, sequence] : gone.open) on_gone_({peer, request});
}

std::size_t RpcServer::turn() {
  std::size_t sent = 0;
  for (const PeerId id : std::set(blocked_)) {
    Peer& peer = peers_.at(id);
    while (!peer.waiting.empty() && transmit(id, peer.waiting.front())) {
      peer.waiting_bytes -= peer.waiting.front().result.size();
      peer.waiting.pop_front();
      ++sent;
    }
    if (peer.waiting.empty()) blocked_.erase(id);
  }
  return sent;
}

}  // namespace fantail::rpc
