// The part of Tailer that makes do with the descriptors there are: files that can be opened again by their names are
// closed first; only when that is not enough the oldest deleted one is given up.
#include <algorithm>
#include <tuple>

#include "producer/tracked.h"

namespace fantail {
namespace {

constexpr std::size_t kClosedAtOnce = 8;  // an eighth of those that may be open, so that not every open looks at all

}  // namespace

void Tailer::make_room() {
  struct Candidate {
    int needed;  // 0: committed by all, 1: sent, 2: has bytes to send
    MonoTime active;
    Tracked* tracked;
  };
  std::vector<Candidate> candidates;
  for (const StreamId id : open_files_.streams()) {
    Tracked* tracked = find(id);
    const wire::StreamInfo* info = tracked == nullptr ? nullptr : publisher_->info(id);
    if (info == nullptr || tracked->deleted_since || tracked->astray || missing_.contains(id)) continue;
    const int needed = info->sent < info->head ? 2 : uncommitted_bytes(*tracked) > 0 ? 1 : 0;
    candidates.push_back({needed, tracked->active, tracked});
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return std::tie(a.needed, a.active) < std::tie(b.needed, b.active);
  });
  // Those that are open beyond the limit, and room for the next.
  const std::size_t beyond = open_files_.in_use() - std::min(open_files_.in_use(), open_files_.limit());
  std::size_t left = beyond + std::max<std::size_t>(1, open_files_.limit() / kClosedAtOnce);
  for (const Candidate& candidate : candidates) {
    const auto there = key_of(candidate.tracked->file.path());
    if (!there || *there != candidate.tracked->key) continue;  // only the descriptor leads to it
    candidate.tracked->file.rest();
    if (--left == 0) return;
  }
}

void Tailer::keep_to_descriptors() {
  while (open_files_.too_many()) {
    Tracked* oldest = nullptr;
    for (const StreamId id : deleted_) {
      Tracked* tracked = find(id);
      if (tracked == nullptr || !tracked->file.is_open()) continue;
      if (oldest == nullptr || tracked->deleted_since < oldest->deleted_since) oldest = tracked;
    }
    if (oldest == nullptr) return make_room();
    const wire::StreamInfo* info = publisher_->info(oldest->id);
    if (info == nullptr) return;
    log::error("descriptors are used up, giving up the oldest deleted file",
               {{"stream", oldest->id},
                {"path", oldest->file.path()},
                {"from", ledger_.held_for(*info).value_or(info->sent)},
                {"to", info->head},
                {"limit", open_files_.limit()}});
    give_up(*oldest, wire::LossReason::kHoldExceeded);
  }
}

}  // namespace fantail
