#include "common/rpc/call_table.h"

#include <algorithm>

namespace fantail::rpc {

std::uint64_t CallTable::add(Call call, MonoTime now) {
  if (call.options.timeout > Duration::zero()) call.deadline = now + call.options.timeout;
  const std::uint64_t number = next_++;
  calls_.emplace(number, std::move(call));
  return number;
}

bool CallTable::awaits_answers() const {
  return std::any_of(calls_.begin(), calls_.end(), [](const auto& entry) { return entry.second.sent; });
}

std::optional<std::uint64_t> CallTable::next_unsent() const {
  for (const auto& [number, call] : calls_) {
    if (!call.sent) return number;
  }
  return std::nullopt;
}

void CallTable::end(std::map<std::uint64_t, Call>::iterator call, CallResult<std::string> result) {
  const OnDone done = std::move(call->second.on_done);
  calls_.erase(call);  // first: it may start another
  if (done) done(std::move(result));
}

void CallTable::on_reply(const wire::Reply& reply, std::string_view result) {
  const auto found = calls_.find(reply.request);
  // A piece that is missing or repeated can only come from a peer that does not follow the protocol.
  if (found == calls_.end() || !found->second.sent || reply.sequence != found->second.next_sequence) {
    ++late_answers_;
    return;
  }
  ++found->second.next_sequence;
  if (!reply.partial) return end(found, std::string(result));
  if (found->second.on_partial) found->second.on_partial(result);
}

void CallTable::on_failure(const wire::Failure& failure) {
  const auto found = calls_.find(failure.request);
  if (found == calls_.end()) {
    ++late_answers_;
    return;
  }
  end(found, tl::unexpected(CallError{CallError::Kind::kRemote, failure.type, failure.message, failure.trace}));
}

void CallTable::on_peer_down(std::string_view reason) {
  std::vector<std::uint64_t> lost;
  for (auto& [number, call] : calls_) {
    if (!call.sent) continue;
    // Partial answers were handed out already: doing it again would hand them out twice.
    if (call.options.repeatable && call.next_sequence == 0) {
      call.sent = false;
    } else {
      lost.push_back(number);
    }
  }
  for (const std::uint64_t number : lost) {
    const auto found = calls_.find(number);
    if (found == calls_.end()) continue;
    end(found, tl::unexpected(CallError{CallError::Kind::kLost,
                                        {},
                                        found->second.method + ": the connection was lost (" + std::string(reason) +
                                            ") before the answer came; it may have taken effect",
                                        {}}));
  }
}

std::vector<std::uint64_t> CallTable::expire(MonoTime now, std::string_view peer) {
  std::vector<std::uint64_t> late;
  for (const auto& [number, call] : calls_) {
    if (call.deadline && *call.deadline <= now) late.push_back(number);
  }
  std::vector<std::uint64_t> to_cancel;
  for (const std::uint64_t number : late) {
    const auto found = calls_.find(number);
    if (found == calls_.end()) continue;
    const bool was_sent = found->second.sent;
    if (was_sent) to_cancel.push_back(number);
    const std::string within = " within " + std::to_string(to_milliseconds(found->second.options.timeout)) + " ms";
    CallError error;
    error.kind = was_sent ? CallError::Kind::kTimeout : CallError::Kind::kUnreachable;
    error.message = was_sent ? found->second.method + ": no answer from " + std::string(peer) + within +
                                   "; it may still take effect"
                             : "nobody answers at " + std::string(peer) + within;
    end(found, tl::unexpected(std::move(error)));
  }
  return to_cancel;
}

std::optional<MonoTime> CallTable::due() const {
  std::optional<MonoTime> at;
  for (const auto& [number, call] : calls_) {
    if (call.deadline) at = std::min(at.value_or(*call.deadline), *call.deadline);
  }
  return at;
}

}  // namespace fantail::rpc
