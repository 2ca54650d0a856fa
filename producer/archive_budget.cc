#include "producer/archive_budget.h"

#include <iterator>

#include "producer/archive.h"

namespace fantail {
namespace {

constexpr std::uint64_t kSparedUses = 16;

}  // namespace

void ArchiveBudget::used(Archive& archive, std::size_t bytes) {
  forget(archive);
  if (bytes == 0) return;
  by_use_.push_back(&archive);
  shares_[&archive] = {std::prev(by_use_.end()), bytes, ++uses_};
  bytes_ += bytes;
  for (auto at = by_use_.begin(); bytes_ > limit_ && at != by_use_.end();) {
    Archive& least = **at++;
    const bool spared = least.under_way() && uses_ - shares_.at(&least).used < kSparedUses;
    if (&least == &archive || spared) continue;
    forget(least);
    least.release();
  }
}

void ArchiveBudget::forget(Archive& archive) {
  const auto share = shares_.find(&archive);
  if (share == shares_.end()) return;
  bytes_ -= share->second.bytes;
  by_use_.erase(share->second.place);
  shares_.erase(share);
}

}  // namespace fantail
