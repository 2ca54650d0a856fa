#pragma once

#include <cstdint>
#include <iterator>
#include <map>

namespace fantail::pipeline {

/// A set of numbers that are mostly neighbours, as intervals: 24 bytes or so for each gap, however many there are.
class NumberSet {
 public:
  /// False: it was in already.
  bool insert(std::uint64_t number) {
    auto next = intervals_.upper_bound(number);
    auto before = next == intervals_.begin() ? intervals_.end() : std::prev(next);
    if (before != intervals_.end() && before->second > number) return false;
    ++size_;
    const bool joins_before = before != intervals_.end() && before->second == number;
    const bool joins_next = next != intervals_.end() && next->first == number + 1;
    if (joins_before && joins_next) {
      before->second = next->second;
      intervals_.erase(next);
    } else if (joins_before) {
      ++before->second;
    } else if (joins_next) {
      const std::uint64_t end = next->second;
      intervals_.erase(next);
      intervals_.emplace(number, end);
    } else {
      intervals_.emplace(number, number + 1);
    }
    return true;
  }
  bool contains(std::uint64_t number) const {
    const auto next = intervals_.upper_bound(number);
    return next != intervals_.begin() && std::prev(next)->second > number;
  }
  /// The first number from `from` on that is not in it.
  std::uint64_t next_missing(std::uint64_t from) const {
    const auto next = intervals_.upper_bound(from);
    if (next == intervals_.begin()) return from;
    const auto at = std::prev(next);
    return at->second > from ? at->second : from;
  }
  std::uint64_t size() const { return size_; }
  std::size_t intervals() const { return intervals_.size(); }

 private:
  std::map<std::uint64_t, std::uint64_t> intervals_;  ///< begin to end, the end not included
  std::uint64_t size_ = 0;
};

}  // namespace fantail::pipeline
