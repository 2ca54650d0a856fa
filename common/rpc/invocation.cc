#include "common/rpc/invocation.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "common/base/thrown.h"

namespace fantail::rpc {

int Invocation::cancelled_fd() {
  const std::lock_guard lock(mutex_);
  if (!cancelled_fd_) {
    cancelled_fd_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (cancelled_) tell_cancelled();
  }
  return cancelled_fd_.get();
}

void Invocation::tell_cancelled() {
  const std::uint64_t one = 1;
  if (cancelled_fd_ && ::write(cancelled_fd_.get(), &one, sizeof one) < 0) {
    // It is full: readable already.
  }
}

void Invocation::cancel() {
  const std::lock_guard lock(mutex_);
  if (cancelled_.exchange(true)) return;
  tell_cancelled();
  parts_.clear();
  waiting_bytes_ = 0;
  room_.notify_all();
}

bool Invocation::partial(std::string_view result) {
  if (result.size() > kMostWaiting) throw Failed("too_large", "a partial answer has more than 1 MiB");
  {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [&] { return cancelled_ || waiting_bytes_ + result.size() <= kMostWaiting; });
    if (cancelled_) return false;
    waiting_bytes_ += result.size();
    parts_.emplace_back(result);
  }
  if (wake_) wake_();
  return true;
}

void Invocation::run(const std::function<std::string(Invocation&)>& method) {
  std::string result;
  std::optional<wire::Failure> failure;
  try {
    result = method(*this);
  } catch (const Failed& e) {
    failure = wire::Failure{0, e.type(), e.what(), {}};
  } catch (...) {
    const Thrown thrown = current_thrown();
    failure = wire::Failure{0, thrown.type, thrown.message, thrown.trace};
  }
  {
    const std::lock_guard lock(mutex_);
    result_ = std::move(result);
    failure_ = std::move(failure);
    ended_ = true;
  }
  if (wake_) wake_();
}

bool Invocation::send_to(RpcServer& server) {
  std::unique_lock lock(mutex_);
  blocked_ = false;
  while (!parts_.empty()) {
    if (!server.partial(caller_, Frame::copy_of(parts_.front()))) {
      blocked_ = true;
      return false;
    }
    waiting_bytes_ -= parts_.front().size();
    parts_.pop_front();
  }
  room_.notify_all();
  if (!ended_) return false;
  if (cancelled_) return true;
  if (failure_) {
    server.fail(caller_, failure_->type, failure_->message, failure_->trace);
  } else {
    server.reply(caller_, result_);
  }
  return true;
}

}  // namespace fantail::rpc
