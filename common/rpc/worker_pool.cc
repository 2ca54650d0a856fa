#include "common/rpc/worker_pool.h"

#include <algorithm>

#include "common/base/digest.h"
#include "common/base/options.h"
#include "common/json/json.h"

namespace fantail::rpc {
namespace {

constexpr std::size_t kMaxTypes = 64;

std::string for_type(const std::string& type) { return type.empty() ? "" : " for '" + printable(type) + "'"; }

CallError nobody(CallError::Kind kind, std::string type, std::string message) {
  return {kind, std::move(type), std::move(message), {}};
}

}  // namespace

// ---- what a worker says

std::string freed_json(std::uint64_t request) { return to_text({{"request", request}}); }

std::string WorkerInfo::to_json() const { return to_text({{"name", name}, {"types", types}, {"slots", slots}}); }

Result<WorkerInfo> WorkerInfo::from_json(std::string_view text) {
  const auto said = parse_json(text);
  if (!said) return tl::unexpected(said.error());
  const auto bad = [](const std::string& why) { return fail(ErrorCode::kInvalid, "no usable greeting: " + why); };
  if (!said->is_object()) return bad("it is no object");
  WorkerInfo info;
  const auto name = said->find("name");
  if (name == said->end() || !name->is_string()) return bad("it has no name");
  info.name = *name;
  if (info.name.empty() || info.name.size() > wire::kMaxNameBytes) return bad("its name must have 1 to 255 bytes");
  const auto types = said->find("types");
  if (types == said->end() || !types->is_array() || types->empty() || types->size() > kMaxTypes) {
    return bad("it must have 1 to " + std::to_string(kMaxTypes) + " types");
  }
  for (const Json& type : *types) {
    if (!type.is_string() || type.get_ref<const std::string&>().size() > wire::kMaxNameBytes) {
      return bad("a type must be a text of at most 255 bytes");
    }
    if (std::find(info.types.begin(), info.types.end(), type) == info.types.end()) info.types.push_back(type);
  }
  const auto slots = said->find("slots");
  if (slots == said->end() || !slots->is_number_unsigned() || *slots > kMaxSlots) {
    return bad("slots must be 0 to " + std::to_string(kMaxSlots));
  }
  info.slots = *slots;
  return info;
}

// ---- calls

std::uint64_t WorkerPool::start(std::string type, CallTable::Call call, MonoTime now) {
  const std::uint64_t number = next_++;
  ++counters_.calls;
  if (waiting_bytes_ + call.arguments.size() > waiting_limit_) {
    if (call.on_done) {
      call.on_done(tl::unexpected(nobody(CallError::Kind::kUnreachable, "too_many_requests",
                                         call.method + ": " + std::to_string(waiting_bytes_) +
                                             " bytes of requests are under way already; wait for answers")));
    }
    return number;
  }
  waiting_bytes_ += call.arguments.size();
  Pending pending{std::move(type), std::move(call), std::nullopt};
  if (pending.call.options.timeout > Duration::zero()) {
    pending.deadline = now + pending.call.options.timeout;
    deadlines_.emplace(*pending.deadline, number);
  }
  waiting_[pending.type].insert(number);
  calls_.emplace(number, std::move(pending));
  hand_out_waiting(now);
  return number;
}

/// Out of the hands of its worker, back into the line at the place that it had.
void WorkerPool::wait_again(std::uint64_t number, Pending& call) {
  call.request = 0;
  --in_hand_;
  waiting_[call.type].insert(number);
}

void WorkerPool::end(std::uint64_t number, CallResult<std::string> result) {
  const auto found = calls_.find(number);
  if (found == calls_.end()) return;
  Pending& call = found->second;
  waiting_bytes_ -= call.call.arguments.size();
  if (call.request == 0) {
    const auto line = waiting_.find(call.type);
    line->second.erase(number);
    if (line->second.empty()) waiting_.erase(line);
  } else {
    --in_hand_;
  }
  if (call.deadline) deadlines_.erase({*call.deadline, number});
  const CallTable::OnDone done = std::move(call.call.on_done);
  calls_.erase(found);  // first: it may start another
  if (done) done(std::move(result));
}

void WorkerPool::cancel(std::uint64_t number) {
  const auto found = calls_.find(number);
  if (found == calls_.end()) return;
  Pending& call = found->second;
  if (call.request != 0) {
    Worker& worker = *workers_.at(call.worker);
    leave(call.worker, worker);
    worker.calls.forget(call.request);
    worker.unfreed.insert(call.request);
    enter(call.worker, worker);
    control_.send(call.worker, encoder_.cancel({call.request}));
  }
  call.call.on_done = {};
  end(number, {});
}

bool WorkerPool::hand_out(std::uint64_t number, Pending& call, PeerId peer, Worker& worker, MonoTime now) {
  CallTable::Call theirs;
  theirs.method = call.call.method;
  theirs.options.timeout = {};  // the deadline is the pool's business
  theirs.on_partial = [this, number](std::string_view part) {
    Pending& mine = calls_.at(number);
    mine.heard = true;
    if (mine.call.on_partial) mine.call.on_partial(part);
  };
  theirs.on_done = [this, number](CallResult<std::string> result) {
    finished_.emplace_back(number, std::move(result));
  };
  std::int64_t left = 0;
  if (call.deadline) left = std::clamp<std::int64_t>(to_milliseconds(*call.deadline - now), 1, UINT32_MAX);
  leave(peer, worker);
  const std::uint64_t request = worker.calls.add(std::move(theirs), now);
  const auto header = encoder_.request({request, call.call.method, static_cast<std::uint32_t>(left), call.type},
                                       as_bytes(call.call.arguments));
  if (!control_.send(peer, header, Frame::copy_of(call.call.arguments))) {
    worker.calls.forget(request);
    enter(peer, worker);
    return false;
  }
  worker.calls.sent(request);
  worker.last_used = ++uses_;
  enter(peer, worker);
  call.worker = peer;
  call.request = request;
  ++in_hand_;
  return true;
}

std::size_t WorkerPool::hand_out_waiting(MonoTime now) {
  std::size_t handed = 0;
  for (auto line = waiting_.begin(); line != waiting_.end();) {
    while (!line->second.empty()) {
      const auto order = order_.find(line->first);  // each time: handing out changes it
      if (order == order_.end()) break;
      const PeerId peer = std::get<PeerId>(*order->second.begin());
      Worker& worker = *workers_.at(peer);
      if (worker.busy() >= worker.info.slots) break;
      const std::uint64_t number = *line->second.begin();
      if (!hand_out(number, calls_.at(number), peer, worker, now)) break;  // its queue is full: later
      line->second.erase(line->second.begin());
      ++handed;
    }
    line = line->second.empty() ? waiting_.erase(line) : std::next(line);
  }
  return handed;
}

std::size_t WorkerPool::expire(MonoTime now) {
  std::size_t ended = 0;
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const std::uint64_t number = deadlines_.begin()->second;
    Pending& call = calls_.at(number);
    const std::string within = " within " + std::to_string(to_milliseconds(call.call.options.timeout)) + " ms";
    CallError error;
    if (call.request != 0) {
      error = nobody(CallError::Kind::kTimeout, {},
                     call.call.method + ": no answer from worker '" + printable(workers_.at(call.worker)->info.name) +
                         "'" + within + "; it may still take effect");
    } else if (has_worker(call.type)) {
      error = nobody(CallError::Kind::kUnreachable, "busy",
                     call.call.method + ": every worker" + for_type(call.type) + " was busy" + within);
    } else {
      ++counters_.no_worker;
      error = nobody(CallError::Kind::kUnreachable, "no_worker",
                     call.call.method + ": no worker" + for_type(call.type) + within + "; is one running?");
    }
    const CallTable::OnDone done = std::move(call.call.on_done);
    cancel(number);
    if (done) done(tl::unexpected(std::move(error)));
    ++ended;
  }
  return ended;
}

/// Ends what workers have answered.
void WorkerPool::settle() {
  for (auto& [number, result] : std::exchange(finished_, {})) {
    const auto found = calls_.find(number);
    if (found == calls_.end()) continue;  // cancelled by whoever was told of the one before
    const bool given_back = !result && result.error().type == kLeavingFailure;
    if (given_back && !found->second.heard) {
      wait_again(number, found->second);
    } else {
      end(number, std::move(result));
    }
  }
}

// ---- workers

void WorkerPool::enter(PeerId peer, const Worker& worker) {
  // A full one comes last, whatever it has in hand.
  const bool full = worker.busy() >= worker.info.slots;
  for (const auto& type : worker.info.types) {
    order_[type].emplace(full ? UINT32_MAX : worker.busy(), worker.last_used, peer);
  }
}

void WorkerPool::leave(PeerId peer, const Worker& worker) {
  const bool full = worker.busy() >= worker.info.slots;
  for (const auto& type : worker.info.types) {
    const auto order = order_.find(type);
    order->second.erase({full ? UINT32_MAX : worker.busy(), worker.last_used, peer});
    if (order->second.empty()) order_.erase(order);
  }
}

Status WorkerPool::ready(PeerId peer, WorkerInfo info) {
  const auto holder = by_name_.find(info.name);
  if (holder != by_name_.end() && holder->second != peer) {
    return fail(ErrorCode::kInvalid,
                "a worker named '" + printable(info.name) + "' is here already; give each one its own --name");
  }
  auto& worker = workers_[peer];
  if (worker) {
    leave(peer, *worker);
    by_name_.erase(worker->info.name);
  } else {
    worker = std::make_unique<Worker>();
  }
  by_name_[info.name] = peer;
  worker->info = std::move(info);
  enter(peer, *worker);
  return {};
}

Status WorkerPool::freed(PeerId peer, std::string_view arguments) {
  const auto said = parse_json(arguments);
  if (!said || !said->is_object() || !said->contains("request") || !(*said)["request"].is_number_unsigned()) {
    return fail(ErrorCode::kInvalid, "which request? It takes {\"request\": NUMBER}");
  }
  const auto found = workers_.find(peer);
  if (found == workers_.end()) return {};
  leave(peer, *found->second);
  found->second->unfreed.erase((*said)["request"].get<std::uint64_t>());
  enter(peer, *found->second);
  return {};
}

void WorkerPool::on_peer_down(PeerId peer, std::string_view reason) {
  const auto found = workers_.find(peer);
  if (found == workers_.end()) return;
  leave(peer, *found->second);
  const std::unique_ptr<Worker> gone = std::move(found->second);
  workers_.erase(found);
  by_name_.erase(gone->info.name);
  counters_.late_answers += gone->calls.late_answers();
  gone->calls.on_peer_down("worker '" + printable(gone->info.name) + "': " + std::string(reason));
  std::vector<std::pair<std::uint64_t, CallResult<std::string>>> lost;
  for (auto& [number, result] : std::exchange(finished_, {})) {
    Pending& call = calls_.at(number);
    if (!call.call.options.repeatable || call.heard) {
      lost.emplace_back(number, std::move(result));
      continue;
    }
    ++counters_.repeated;
    wait_again(number, call);
  }
  for (auto& [number, result] : lost) end(number, std::move(result));
}

bool WorkerPool::on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, const Frame& payload) {
  const auto found = workers_.find(peer);
  if (found == workers_.end()) return false;
  Worker& worker = *found->second;
  switch (kind) {
    case wire::Kind::kReply: {
      const auto reply = wire::decode_reply(body, payload.bytes());
      if (!reply) break;
      leave(peer, worker);
      if (!reply->partial) worker.unfreed.erase(reply->request);  // it had ended before it heard that it need not
      worker.calls.on_reply(*reply, payload.text());
      enter(peer, worker);
      settle();
      return true;
    }
    case wire::Kind::kFailure: {
      const auto failure = wire::decode_failure(body);
      if (!failure) break;
      leave(peer, worker);
      worker.unfreed.erase(failure->request);
      worker.calls.on_failure(*failure);
      enter(peer, worker);
      settle();
      return true;
    }
    case wire::Kind::kEvent:
      if (const auto event = wire::decode_event(body, payload.bytes())) {
        if (on_event_) on_event_(peer, *event, payload.text());
        return true;
      }
      break;
    default: return false;
  }
  ++counters_.rejected;
  return true;
}

std::size_t WorkerPool::turn(MonoTime now) { return hand_out_waiting(now) + expire(now); }

std::optional<MonoTime> WorkerPool::due() const {
  if (deadlines_.empty()) return std::nullopt;
  return deadlines_.begin()->first;
}

bool WorkerPool::has_worker(std::string_view type) const { return order_.contains(type); }

std::string WorkerPool::name_of(PeerId worker) const {
  const auto found = workers_.find(worker);
  return found == workers_.end() ? "" : found->second->info.name;
}

PoolCounters WorkerPool::counters() const {
  PoolCounters out = counters_;
  for (const auto& [peer, worker] : workers_) out.late_answers += worker->calls.late_answers();
  return out;
}

}  // namespace fantail::rpc
