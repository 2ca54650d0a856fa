#include "consumer/sync_worker.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace fantail {
namespace {

Status make_durable(const SyncWorker::Job& job) {
  for (const UniqueFd& fd : job.filesystems) {
    if (!fd || ::syncfs(fd.get()) != 0) return fail_errno(errno, "syncfs");
  }
  for (const UniqueFd& fd : job.files) {
    if (!fd || ::fsync(fd.get()) != 0) return fail_errno(errno, "fsync");
  }
  return {};
}

}  // namespace

SyncWorker::SyncWorker() : done_fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), thread_([this] { run(); }) {}

SyncWorker::~SyncWorker() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void SyncWorker::submit(Job job) {
  busy_ = true;
  {
    const std::lock_guard lock(mutex_);
    job_ = std::move(job);
  }
  wake_.notify_one();
}

std::optional<Status> SyncWorker::take_result() {
  if (!busy_) return std::nullopt;
  const std::lock_guard lock(mutex_);
  if (!result_) return std::nullopt;
  std::uint64_t count = 0;
  (void)!::read(done_fd_.get(), &count, sizeof count);  // it only wakes the loop
  busy_ = false;
  return std::exchange(result_, std::nullopt);
}

void SyncWorker::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || job_.has_value(); });
    if (!job_) return;
    const Job job = std::move(*job_);
    job_.reset();
    lock.unlock();
    const Status status = make_durable(job);
    lock.lock();
    result_ = status;
    const std::uint64_t one = 1;
    (void)!::write(done_fd_.get(), &one, sizeof one);  // a counter of 1 always fits
  }
}

}  // namespace fantail
