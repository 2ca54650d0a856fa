// The part of Consumer that makes outputs durable: sinks flush, a worker syncs files, cursors are stored, producers are
// told.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "consumer/entry.h"
#include "consumer/stdout_sink.h"

namespace fantail {
namespace {

constexpr Duration kRetryLastSync = 100ms;

}  // namespace

/// Takes a checkpoint of every sink and has it made durable.
Consumer::Sync Consumer::begin_sync() {
  if (!store_) return Sync::kNothingToDo;
  if (worker_.busy() || storing_) return Sync::kNotNow;
  if (!record_losses()) return Sync::kNotNow;  // before any cursor behind them
  for (const auto& sink : sinks_) {
    if (auto ok = sink->prepare_checkpoint(); !ok) {
      blocked_by(ok.error());
      return Sync::kNotNow;
    }
  }
  for (std::size_t i = 0; i < sinks_.size(); ++i) {
    for (const StreamId id : sinks_[i]->take_spoilt()) {
      Entry& entry = *entries_.at(id);
      entry.opening[i] = entry.taken[i];
      if (auto ok = catch_up(entry); !ok) blocked_by(ok.error());
    }
  }
  if (!std::all_of(sinks_.begin(), sinks_.end(), [](const auto& s) { return s->drained(); })) return Sync::kNotNow;
  SyncWorker::Job job;
  syncing_.clear();
  bool anything = false;
  for (std::size_t i = 0; i < sinks_.size(); ++i) {
    std::vector<Checkpoint::Position> positions;
    for (const StreamId id : begun_) {
      if (const auto start = std::exchange(entries_.at(id)->start[i], std::nullopt)) positions.push_back({id, *start});
    }
    Checkpoint checkpoint = sinks_[i]->checkpoint();
    positions.insert(positions.end(), checkpoint.positions.begin(),
                     checkpoint.positions.end());  // the later one counts
    anything = anything || !positions.empty() || !checkpoint.outputs.empty();
    for (auto& fd : checkpoint.files) job.files.push_back(std::move(fd));
    if (checkpoint.filesystem) job.filesystems.push_back(std::move(checkpoint.filesystem));
    syncing_.push_back({sinks_[i]->key(), std::move(positions), std::move(checkpoint.outputs)});
  }
  begun_.clear();
  if (!anything && known_sequences_.empty() && known_->unsaved().empty()) return Sync::kNothingToDo;
  syncing_sequences_ = std::exchange(known_sequences_, {});
  worker_.submit(std::move(job));
  return Sync::kBegun;
}

/// False: not now; tried again before the next checkpoint.
bool Consumer::record_losses() {
  while (!unrecorded_.empty()) {
    const CursorStore::Loss& loss = unrecorded_.back();
    if (auto ok = store_->record_loss(loss); !ok) {
      if (const auto n = blocked_log_.occurred(mono_now())) {
        log::error("cannot record a loss, waiting for it to become possible",
                   {{"stream", loss.stream.stream}, {"error", ok.error()}, {"count", *n}});
      }
      return false;
    }
    unrecorded_.pop_back();
  }
  return true;
}

/// When the worker is done: goes on to store the cursors. False while it is not done.
bool Consumer::finish_sync() {
  const auto result = worker_.take_result();
  if (!result) return false;
  if (!*result) {
    // After a failed fsync the kernel may have dropped what it could not write: only reading it again from the source
    // helps.
    log::error("cannot make output durable; ending, a restart goes on from the last commit",
               {{"error", result->error()}});
    failed_ = true;
    return true;
  }
  storing_ = true;
  store_checkpoint();
  return true;
}

/// Stores the cursors of what is durable and tells the producers. False: not now.
bool Consumer::store_checkpoint() {
  if (auto ok = store_->save(syncing_, syncing_sequences_, known_->unsaved()); !ok) {
    if (const auto n = blocked_log_.occurred(mono_now())) {
      log::error("cannot store cursors, waiting for it to become possible; nothing is lost",
                 {{"error", ok.error()}, {"count", *n}});
    }
    return false;
  }
  storing_ = false;
  for (const auto& sink : sinks_) sink->stored();
  if (retry_at_) retry_at_ = mono_now();  // a sink may have waited for this
  known_->saved();
  std::set<StreamId> moved;
  for (std::size_t i = 0; i < syncing_.size(); ++i) {
    for (const auto& position : syncing_[i].positions) {
      entries_.at(position.stream)->durable[i] = position.offset;
      moved.insert(position.stream);
    }
  }
  std::vector<wire::CommitEntry> commits;
  for (const StreamId id : moved) {
    const auto& durable = entries_.at(id)->durable;
    const FileOffset least = *std::min_element(durable.begin(), durable.end());
    if (least.raw > 0) commits.push_back({id, least});
  }
  streams_->commit(commits);
  return true;
}

void Consumer::cycle(MonoTime now) {
  if (worker_.busy()) finish_sync();
  if (!rewinds_.empty()) rewind_what_waits();
  if (now < next_sync_) return;
  next_sync_ = now + config_.sync;
  if (storing_) store_checkpoint();
  begin_sync();
}

/// On the way out: everything that was taken gets durable and committed. False: not within `limit`, or not before
/// another stop signal.
bool Consumer::settle_all(Duration limit, StopSignals& signals) {
  const MonoTime until = mono_now() + limit;
  bool told = false;
  for (;;) {
    if (worker_.busy()) finish_sync();
    if (storing_) store_checkpoint();
    if (failed_) return false;
    flush(mono_now());
    // Nobody will read the rest, so what of it is committed does not matter any more.
    if (stdout_ != nullptr && stdout_->closed() && !worker_.busy() && !storing_) return true;
    const bool waiting_for_reader = stdout_ != nullptr && !stdout_->drained();
    if (!waiting_for_reader && begin_sync() == Sync::kNothingToDo) return true;
    if (mono_now() >= until) return false;
    if (signals.take() > 0) {
      log::warn("stopped again, ending before outputs are settled; a restart goes on from the last commit");
      return false;
    }
    if (worker_.busy()) {
      Waiter waiter;
      waiter.add_descriptor(worker_.fd());
      waiter.add_descriptor(signals.fd());
      waiter.wait(kRetryLastSync);
    } else {
      if (!std::exchange(told, true)) log::info("outputs are not settled yet, trying before the end");
      std::array<pollfd, 2> awaited = {pollfd{waiting_for_reader ? STDOUT_FILENO : -1, POLLOUT, 0},
                                       pollfd{signals.fd(), POLLIN, 0}};
      ::poll(awaited.data(), awaited.size(), static_cast<int>(to_milliseconds(kRetryLastSync)));
    }
  }
}

}  // namespace fantail
