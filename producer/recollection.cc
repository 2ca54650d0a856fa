#include "producer/recollection.h"

#include <algorithm>

namespace fantail {
namespace {

constexpr Duration kAskAgain = 2s;
constexpr Duration kOthersMayCome = 2s;  // after a durable consumer came; those of one host come within a second
constexpr Duration kLongest = 10s;       // since somebody is there; answers that are under way may take longer
constexpr Duration kLongestAnswers = 60s;
constexpr std::size_t kMaxStreams = 1'000'000;  // more can only be an attack
constexpr std::size_t kMaxHeads = 16;
constexpr std::uint64_t kMaxNumber = std::uint64_t{1} << 62;  // sequences, offsets: no file system has more

}  // namespace

void Recollection::consumer_up(PeerId peer, bool durable, MonoTime now) {
  if (talks_.empty()) first_up_ = now;
  talks_[peer] = Talk{.durable = durable, .answered = false, .after = 0, .asked = std::nullopt};
  if (durable) last_durable_up_ = now;
}

void Recollection::consumer_down(PeerId peer) { talks_.erase(peer); }

std::optional<Recollection::Question> Recollection::next_question(MonoTime now) const {
  for (const auto& [peer, talk] : talks_) {
    if (!talk.durable || talk.answered) continue;
    if (!talk.asked || now - *talk.asked >= kAskAgain) return Question{peer, talk.after};
  }
  return std::nullopt;
}

void Recollection::asked(PeerId peer, MonoTime now) {
  if (const auto talk = talks_.find(peer); talk != talks_.end()) talk->second.asked = now;
}

void Recollection::told(PeerId peer, const wire::Streams& page, MonoTime now) {
  const auto found = talks_.find(peer);
  if (found == talks_.end() || !page.listing) return;
  Talk& talk = found->second;
  if (!talk.asked || talk.answered) return;
  for (const auto& info : page.streams) take(info);
  last_told_ = now;
  const std::uint64_t last = page.streams.empty() ? 0 : page.streams.back().sequence;
  if (!page.more || page.streams.empty()) {
    talk.answered = true;
    ++answers_;
  } else if (last > talk.after) {  // else it is a page that was asked for twice
    talk.after = last;
    talk.asked.reset();
  }
}

void Recollection::take(const wire::StreamInfo& info) {
  if (info.sequence == 0 || info.sequence > kMaxNumber || info.head.raw > kMaxNumber || info.file.inode == 0) {
    ++unusable_;
    return;
  }
  last_sequence_ = std::max(last_sequence_, info.sequence);
  const FileKey key{info.file.device, info.file.inode};
  auto found = streams_.find(info.stream);
  if (found == streams_.end()) {
    if (info.sealed && info.committed >= info.head && !present_.contains(key)) return;
    if (streams_.size() >= kMaxStreams) {
      ++unusable_;
      return;
    }
    ToldStream fresh;
    fresh.info = info;
    fresh.lowest = fresh.highest = info.committed;
    found = streams_.emplace(info.stream, std::move(fresh)).first;
  }
  ToldStream& told = found->second;
  told.info.base = std::min(told.info.base, info.base);
  told.lowest = std::min(told.lowest, info.committed);
  told.highest = std::max(told.highest, info.committed);
  if (info.sealed) {
    told.sealed = true;
    told.final_length = std::max(told.final_length, info.head);
  }
  told.disputed = told.disputed || told.key() != key;
  if (info.file.head_length == 0) return;
  const auto head = told.heads.find(info.file.head_length);
  if (head != told.heads.end()) {
    told.disputed = told.disputed || head->second != info.file.head_digest;
  } else if (told.heads.size() < kMaxHeads) {
    told.heads.emplace(info.file.head_length, info.file.head_digest);
  }
}

bool Recollection::enough(MonoTime now) const {
  if (talks_.empty()) return false;
  const Duration since = now - first_up_;
  if (since >= kLongestAnswers) return true;
  if (since >= kLongest && now - last_told_ >= kAskAgain) return true;
  const bool all =
      std::all_of(talks_.begin(), talks_.end(), [](const auto& t) { return !t.second.durable || t.second.answered; });
  return all && answers_ > 0 && now - last_durable_up_ >= kOthersMayCome;
}

}  // namespace fantail
