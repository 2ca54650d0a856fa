#include "common/rpc/rpc_worker.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/base/digest.h"
#include "common/base/options.h"
#include "common/base/program.h"
#include "common/base/version.h"
#include "common/transport/endpoint.h"
#include "common/transport/waiter.h"

namespace fantail::rpc {
namespace {

constexpr std::size_t kMostEventBytes = 1024 * 1024;
constexpr std::size_t kEventsPerTurn = 256;
constexpr Duration kLongestWait = 1s;
constexpr Duration kTellTimeout = 5s;
constexpr Duration kReadyAgain = 1s;     // after a refusal
constexpr Duration kNamePatience = 10s;  // an earlier run may still count as there
constexpr Duration kLastWord = 500ms;

}  // namespace

Result<std::unique_ptr<RpcWorker>> RpcWorker::open(Context& context, WorkerOptions options) {
  std::unique_ptr<RpcWorker> worker(new RpcWorker(std::move(options)));
  worker->options_.slots = std::clamp<std::uint32_t>(worker->options_.slots, 1, kMaxSlots);
  worker->wake_fd_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!worker->wake_fd_) return fail_errno(errno, "an event for the worker's loop");
  wire::Peer self;
  self.role = wire::Role::kWorker;
  self.software = std::string("fantail ") + kVersion;
  self.instance = random_id<InstanceId>();
  self.name = worker->options_.name;
  auto link = ControlLink::open(context, std::move(self), worker->options_.control);
  if (!link) return tl::unexpected(link.error());
  worker->link_ = std::move(*link);
  worker->server_ = std::make_unique<RpcServer>(
      *worker->link_, [w = worker.get()](const Caller& caller, const wire::Request& request,
                                         std::string_view arguments) { w->on_request(caller, request, arguments); });
  worker->server_->on_gone([w = worker.get()](const Caller& caller) { w->on_gone(caller); });
  const auto endpoint = parse_endpoint(worker->options_.address);
  if (!endpoint) return tl::unexpected(endpoint.error());
  if (worker->options_.bind) {
    auto bound = worker->link_->bind(*endpoint);
    if (!bound) return tl::unexpected(bound.error());
    worker->address_ = *bound;
  } else {
    if (endpoint->is_wildcard()) {
      return fail(ErrorCode::kInvalid,
                  "'" + worker->options_.address + "': cannot connect to a wildcard; name host and port");
    }
    worker->address_ = worker->options_.address;
    if (const auto peer = worker->link_->connect(worker->address_); !peer) return tl::unexpected(peer.error());
  }
  return worker;
}

RpcWorker::~RpcWorker() {
  end_events();
  {
    const std::lock_guard lock(mutex_);
    queue_.clear();
  }
  for (auto& [caller, invocation] : invocations_) invocation->cancel();
  for (auto& thread : threads_) thread.request_stop();
}

void RpcWorker::serve(std::string method, Method function, Where where) {
  methods_.insert_or_assign(std::move(method), Server{std::move(function), where});
}

// ---- peers

void RpcWorker::on_peer_up(PeerId peer, const wire::Peer& who) {
  up_[peer].who = who;
  if (hooks_.on_connected) hooks_.on_connected(who.name);
}

void RpcWorker::on_peer_down(PeerId peer, std::string_view reason) {
  const auto found = up_.find(peer);
  if (found == up_.end()) return;
  Upstream gone = std::move(found->second);
  up_.erase(found);
  server_->on_peer_down(peer);
  gone.calls.on_peer_down(reason);
  if (hooks_.on_disconnected) hooks_.on_disconnected(gone.who.name, reason);
}

void RpcWorker::on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) {
  if (server_->on_control(peer, kind, body, payload)) return;
  const auto found = up_.find(peer);
  if (found == up_.end()) return;
  if (kind == wire::Kind::kReply) {
    if (const auto reply = wire::decode_reply(body, payload.bytes())) {
      found->second.calls.on_reply(*reply, payload.text());
    }
  } else if (kind == wire::Kind::kFailure) {
    if (const auto failure = wire::decode_failure(body)) found->second.calls.on_failure(*failure);
  }
}

/// Asks the other side something that is about this worker. False: its queue is full, later.
bool RpcWorker::tell(PeerId peer, Upstream& upstream, std::string_view method, const std::string& arguments,
                     CallTable::OnDone done) {
  CallTable::Call call;
  call.method = method;
  call.options.timeout = kTellTimeout;
  call.on_done = std::move(done);
  const std::uint64_t number = upstream.calls.add(std::move(call), mono_now());
  const auto header = encoder_.request({number, std::string(method), 0}, as_bytes(arguments));
  if (!link_->send(peer, header, Frame::copy_of(arguments))) {
    upstream.calls.forget(number);
    return false;
  }
  upstream.calls.sent(number);
  return true;
}

bool RpcWorker::say_ready(PeerId peer, Upstream& upstream) {
  const WorkerInfo info{options_.name, options_.types, leaving_ ? 0 : options_.slots};
  return tell(peer, upstream, kReadyMethod, info.to_json(), [this](CallResult<std::string> result) {
    if (result) {
      refused_since_.reset();
      return;
    }
    const MonoTime now = mono_now();
    ready_again_ = now + kReadyAgain;
    if (result.error().kind != CallError::Kind::kRemote) return;
    if (!refused_since_) {
      refused_since_ = now;
      log::warn("not taken as a worker, trying again", {{"endpoint", address_}, {"error", result.error().message}});
    } else if (now - *refused_since_ >= kNamePatience) {
      failed_ = Error{ErrorCode::kInvalid, "not taken as a worker at " + address_ + ": " + result.error().message};
    }
  });
}

void RpcWorker::say_ready_to_all() {
  for (auto& [peer, upstream] : up_) upstream.ready_said = false;
}

/// What the other sides have to know of us, as far as their queues take it.
std::size_t RpcWorker::tell_upstream(MonoTime now) {
  if (options_.bind) return 0;
  if (ready_again_ && now >= *ready_again_) {
    ready_again_.reset();
    say_ready_to_all();
  }
  std::size_t told = 0;
  for (auto& [peer, upstream] : up_) {
    if (!upstream.ready_said) {
      upstream.ready_said = say_ready(peer, upstream);
      told += upstream.ready_said;
    }
    while (!upstream.freed.empty() && tell(peer, upstream, kFreedMethod, freed_json(upstream.freed.front()), {})) {
      upstream.freed.pop_front();
      ++told;
    }
    upstream.calls.expire(now, address_);
  }
  return told;
}

// ---- requests

void RpcWorker::on_request(const Caller& caller, const wire::Request& request, std::string_view arguments) {
  const auto server = methods_.find(request.method);
  if (server == methods_.end()) {
    server_->fail(caller, "unknown_method", "method " + printable(request.method) + " not found");
    return;
  }
  if (leaving_) {
    server_->fail(caller, kLeavingFailure, "this worker is about to end");
    return;
  }
  std::optional<MonoTime> deadline;
  if (request.timeout_ms > 0) deadline = mono_now() + std::chrono::milliseconds(request.timeout_ms);
  const bool here = server->second.where == Where::kLoop;
  std::function<void()> wake_loop;
  if (!here) wake_loop = [this] { wake(); };
  auto invocation =
      std::make_shared<Invocation>(caller, request, std::string(arguments), deadline, std::move(wake_loop));
  if (hooks_.on_request) hooks_.on_request(*invocation);
  if (here) {
    invocation->run(server->second.function);
    if (!invocation->send_to(*server_)) invocations_.emplace(caller, std::move(invocation));
    return;
  }
  invocations_.emplace(caller, invocation);
  begin(std::move(invocation), server->second);
}

void RpcWorker::begin(std::shared_ptr<Invocation> invocation, const Server& server) {
  const std::lock_guard lock(mutex_);
  queue_.push_back({std::move(invocation), &server.function});
  if (idle_threads_ < queue_.size() && threads_.size() < options_.slots) {
    threads_.emplace_back([this](std::stop_token stop) { work(std::move(stop)); });
  }
  work_there_.notify_one();
}

void RpcWorker::work(std::stop_token stop) {
  for (;;) {
    Queued next;
    {
      std::unique_lock lock(mutex_);
      ++idle_threads_;
      const bool any = work_there_.wait(lock, stop, [&] { return !queue_.empty(); });
      --idle_threads_;
      if (!any || stop.stop_requested()) return;
      next = std::move(queue_.front());
      queue_.pop_front();
    }
    next.invocation->run(*next.function);
  }
}

void RpcWorker::on_gone(const Caller& caller) {
  const auto found = invocations_.find(caller);
  if (found == invocations_.end()) return;
  found->second->cancel();
  const std::lock_guard lock(mutex_);
  const auto waiting =
      std::find_if(queue_.begin(), queue_.end(), [&](const Queued& q) { return q.invocation == found->second; });
  if (waiting == queue_.end()) return;
  // It was not begun, and nobody will.
  queue_.erase(waiting);
  found->second->run([](Invocation&) { return std::string(); });
}

void RpcWorker::wake() {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(woken_, true)) return;
  }
  const std::uint64_t one = 1;
  if (::write(wake_fd_.get(), &one, sizeof one) < 0) {
    // It is full: readable already.
  }
}

std::size_t RpcWorker::send_answers() {
  std::size_t done = 0;
  for (auto it = invocations_.begin(); it != invocations_.end();) {
    const auto invocation = it->second;
    if (!invocation->send_to(*server_)) {
      ++it;
      continue;
    }
    it = invocations_.erase(it);
    ++done;
    // Whoever hands out work counts it as ours until it is told that we are free.
    const auto upstream = up_.find(invocation->caller().peer);
    if (invocation->cancelled() && upstream != up_.end() && !options_.bind) {
      upstream->second.freed.push_back(invocation->caller().request);
    }
  }
  return done;
}

// ---- events

void RpcWorker::end_events() {
  const std::lock_guard lock(mutex_);
  closing_ = true;
  room_.notify_all();
}

bool RpcWorker::emit(std::string channel, std::string content) {
  {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [&] { return closing_ || event_bytes_ == 0 || event_bytes_ + content.size() <= kMostEventBytes; });
    if (closing_) return false;
    event_bytes_ += content.size();
    events_.push_back({std::move(channel), std::move(content), std::nullopt});
  }
  wake();
  return true;
}

std::size_t RpcWorker::send_events() {
  std::size_t sent = 0;
  const std::lock_guard lock(mutex_);
  for (; sent < kEventsPerTurn && !events_.empty(); ++sent) {
    Outgoing& event = events_.front();
    if (!event.to) {
      event.to.emplace();
      for (const auto& [peer, upstream] : up_) event.to->insert(peer);
    }
    std::erase_if(*event.to, [&](PeerId peer) {
      return !up_.contains(peer) || server_->emit(peer, event.channel, event.content);
    });
    if (!event.to->empty()) break;  // somebody's queue is full: later
    event_bytes_ -= event.content.size();
    events_.pop_front();
  }
  room_.notify_all();
  return sent;
}

// ---- the loop

std::size_t RpcWorker::turn(MonoTime now) {
  std::size_t work = link_->turn(now, *this);
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(woken_, false)) {
      std::uint64_t count = 0;
      if (::read(wake_fd_.get(), &count, sizeof count) < 0) {
        // It was not written yet: the next turn finds nothing to do, no harm.
      }
      ++work;
    }
  }
  work += send_answers();
  work += send_events();
  work += server_->turn();
  return work + tell_upstream(now);
}

void RpcWorker::wait(MonoTime now, int also) {
  Waiter waiter;
  for (void* socket : link_->native_sockets()) waiter.add_socket(socket);
  waiter.add_descriptor(wake_fd_.get());
  if (also >= 0) waiter.add_descriptor(also);
  MonoTime until = std::min<MonoTime>(now + kLongestWait, link_->due());
  if (ready_again_) until = std::min(until, *ready_again_);
  waiter.wait(until - now, &spin_);
}

void RpcWorker::take_no_more() {
  leaving_ = true;
  if (options_.bind) return;
  say_ready_to_all();
}

int RpcWorker::run(StopSignals& signals, Duration drain) {
  std::optional<MonoTime> stop_at;
  int arrived = 0;
  for (;;) {
    const MonoTime now = mono_now();
    const std::size_t work = turn(now);
    const int more = signals.take();
    arrived += more;
    if (more > 0 && !stop_at) {
      stop_at = now + drain;
      log::info("stopping", {{"going_on", invocations_.size()}});
      take_no_more();
    }
    if (failed_) break;
    if (stop_at && (invocations_.empty() || arrived > 1 || now >= *stop_at)) break;
    if (work == 0) wait(mono_now(), signals.fd());
  }
  if (failed_) {
    log::error("ending", {{"error", *failed_}});
    return kExitFailure;
  }
  const bool left = !invocations_.empty();
  if (left) log::warn("ending with requests unanswered", {{"requests", invocations_.size()}});
  link_->flush(kLastWord, *this);
  return left ? kExitFailure : kExitOk;
}

}  // namespace fantail::rpc
