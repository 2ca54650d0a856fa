#include "producer/absences.h"

namespace fantail {

std::vector<std::string> Absences::look(const CommitLedger& ledger, MonoTime now, Duration limit) {
  std::vector<std::string> gone;
  for (const auto& [name, consumer] : ledger.consumers()) {
    Absence& absence = known_[name];
    if (consumer.connected) {
      absence = {};
      continue;
    }
    if (!absence.since) absence.since = now;
    if (away(name, now) >= limit) gone.push_back(name);
  }
  return gone;
}

Duration Absences::away(const std::string& name, MonoTime now) const {
  const auto found = known_.find(name);
  if (found == known_.end()) return {};
  return found->second.before + (found->second.since ? now - *found->second.since : Duration::zero());
}

std::map<std::string, Duration> Absences::all(MonoTime now) const {
  std::map<std::string, Duration> out;
  for (const auto& [name, absence] : known_) out[name] = away(name, now);
  return out;
}

}  // namespace fantail
