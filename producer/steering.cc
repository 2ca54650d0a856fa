// The part of Tailer that an operator sees and steers: what there is, what is to be forgotten or sent again.
#include <algorithm>

#include "producer/tracked.h"

namespace fantail {
namespace {

tl::unexpected<Error> rebuilding() {
  return fail(ErrorCode::kBusy, "the registry is being made again from what consumers know; try again when it is done");
}

}  // namespace

StreamState Tailer::state_of(const Tracked& tracked) const {
  StreamState state;
  const StreamId id = tracked.id;
  state.info = *publisher_->info(id);
  state.current_path = tracked.file.path();
  state.gone = tracked.gone;
  state.open = tracked.file.is_open();
  if (tracked.deleted_since) state.deleted_for = now_ - *tracked.deleted_since;
  return state;
}

void Tailer::each_state(const std::function<void(const StreamState&)>& take) const {
  for (const auto& [id, tracked] : tracked_) take(state_of(*tracked));
}

std::vector<StreamState> Tailer::states(std::uint64_t after, std::size_t limit) const {
  std::vector<const Tracked*> page;
  for (const auto& [id, tracked] : tracked_) {
    if (tracked->sequence > after) page.push_back(tracked.get());
  }
  const auto end = page.begin() + static_cast<std::ptrdiff_t>(std::min(limit, page.size()));
  std::partial_sort(page.begin(), end, page.end(),
                    [](const Tracked* a, const Tracked* b) { return a->sequence < b->sequence; });
  std::vector<StreamState> out;
  for (auto it = page.begin(); it != end; ++it) out.push_back(state_of(**it));
  return out;
}

Status Tailer::forget(StreamId id) {
  if (recollection_) return rebuilding();
  Tracked* tracked = find(id);
  const wire::StreamInfo* info = publisher_->info(id);
  if (tracked == nullptr || info == nullptr) return fail(ErrorCode::kNotFound, "there is no stream " + to_string(id));
  if (auto ok = registry_.remove_streams({id}); !ok) return ok;
  const ByteRange left{ledger_.held_for(*info).value_or(info->sent), info->head};
  log::warn("stream forgotten because it was asked for",
            {{"stream", id}, {"path", tracked->file.path()}, {"from", left.from}, {"to", left.to}});
  if (tracked->deleted_since && !tracked->gone) counters_.given_up_bytes += left.bytes();
  publisher_->seal(id, info->head, wire::LossReason::kStreamUnknown);
  if (lives_in_archive(*tracked)) copies_.erase(tracked->key);
  drop(*tracked);
  next_scan_ = now_;  // a file that is there becomes another stream
  return {};
}

Status Tailer::rewind(StreamId id, FileOffset to) {
  if (recollection_) return rebuilding();
  Tracked* tracked = find(id);
  const wire::StreamInfo* info = publisher_->info(id);
  if (tracked == nullptr || info == nullptr) return fail(ErrorCode::kNotFound, "there is no stream " + to_string(id));
  if (auto ok = rewind_file(tracked->file, tracked->gone, *info, to); !ok) return ok;
  publisher_->rewind(id, to);
  dirty_.insert(id);
  log::info("stream rewound because it was asked for", {{"stream", id}, {"path", tracked->file.path()}, {"to", to}});
  save(now_);
  return {};
}

Status rewind_file(TailedFile& file, const std::optional<wire::LossReason>& gone, const wire::StreamInfo& info,
                   FileOffset to) {
  if (gone) {
    return fail(ErrorCode::kInvalid, "the bytes of stream " + to_string(info.stream) +
                                         " cannot be read any more: " + std::string(wire::to_string(*gone)));
  }
  if (to < info.base || to > info.sent) {
    return fail(ErrorCode::kInvalid, "--to " + std::to_string(to.raw) + ": stream " + to_string(info.stream) +
                                         " was sent from " + std::to_string(info.base.raw) + " to " +
                                         std::to_string(info.sent.raw) + "; give an offset between them");
  }
  return file.skip_to(to);
}

Status Tailer::forget_consumer(const std::string& name) {
  if (recollection_) return rebuilding();
  const auto found = ledger_.consumers().find(name);
  if (found == ledger_.consumers().end()) {
    return fail(ErrorCode::kNotFound, "there is no durable consumer '" + name + "'");
  }
  const CommitLedger::Consumer& consumer = found->second;
  if (consumer.connected) {
    return fail(ErrorCode::kBusy, "consumer '" + name + "' is connected; stop it first");
  }
  if (auto ok = registry_.forget_consumer(name); !ok) return ok;
  // What only it was to get of deleted files is lost to it: nobody will tell it when it comes again.
  const auto topics = consumer.interest;
  std::vector<std::pair<const Tracked*, ByteRange>> lacked;
  for (const auto& [id, tracked] : tracked_) {
    const wire::StreamInfo* info = publisher_->info(id);
    if (info == nullptr || !topics.wants(*info) || (!tracked->deleted_since && !tracked->gone)) continue;
    const FileOffset at = std::max(ledger_.position(name, id).value_or(FileOffset{}), info->base);
    if (at < info->head) lacked.emplace_back(tracked.get(), ByteRange{at, info->head});
  }
  std::uint64_t bytes = 0;
  for (const auto& [tracked, range] : lacked) {
    bytes += range.bytes();
    log::warn("no longer held for a consumer that is forgotten", {{"durable", name},
                                                                  {"stream", tracked->id},
                                                                  {"path", tracked->file.path()},
                                                                  {"from", range.from},
                                                                  {"to", range.to}});
    if (!tracked->gone) counters_.given_up_bytes += range.bytes();
  }
  log::warn("durable consumer forgotten", {{"durable", name}, {"bytes", bytes}});
  ledger_.forget_consumer(name);
  absences_.forget(name);
  std::erase_if(commits_, [&](const auto& entry) { return entry.first.first == name; });
  next_sweep_ = now_;
  return {};
}

/// Those that have been away for too long hold nothing any more.
void Tailer::forget_absent(MonoTime now) {
  for (const std::string& name : absences_.look(ledger_, now, config_.forget_after)) {
    log::warn("a durable consumer was away for too long",
              {{"durable", name}, {"away_s", to_milliseconds(absences_.away(name, now)) / 1000}});
    if (auto ok = forget_consumer(name); !ok) {
      if (const auto n = save_error_log_.occurred(now)) {
        log::error("cannot forget a consumer, will try again",
                   {{"durable", name}, {"error", ok.error()}, {"count", *n}});
      }
    }
  }
}

}  // namespace fantail
