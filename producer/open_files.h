#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <unordered_set>
#include <utility>

#include "common/base/types.h"

namespace fantail {

/// Which tailed files are open, and how many may be: a share of the descriptors that the process may have. One thread.
class OpenFiles {
 public:
  /// What is left to tailed files of `descriptors` when `in_use` are before the first file is open. Connections come
  /// later, and libzmq aborts when it finds no descriptor for one.
  static std::size_t limit_for(std::size_t descriptors, std::size_t in_use) {
    constexpr std::size_t kLeastKept = 20;
    constexpr std::size_t kMostKept = 512;
    constexpr std::size_t kLeastFiles = 4;
    const std::size_t others = in_use + std::clamp(descriptors / 4, kLeastKept, kMostKept);
    return descriptors > others + kLeastFiles ? descriptors - others : kLeastFiles;
  }

  explicit OpenFiles(std::size_t limit) : limit_(limit) {}
  /// Called before a file is opened that would be one too many: closes others, if it can.
  void on_full(std::function<void()> make_room) { make_room_ = std::move(make_room); }
  /// How many descriptors of the same share are open for files that are no streams yet.
  void count_also(std::function<std::size_t()> others) { others_ = std::move(others); }

  /// Makes room first. A few more than the limit may be open for a moment: too_many() shows that something has to be
  /// given up.
  bool may_open() {
    if (in_use() >= limit_ && make_room_) make_room_();
    return in_use() < limit_ || in_use() - limit_ < kBeyond;
  }
  void opened(StreamId stream) { open_.insert(stream); }
  void closed(StreamId stream) { open_.erase(stream); }
  const std::unordered_set<StreamId>& streams() const { return open_; }
  std::size_t count() const { return open_.size(); }
  std::size_t in_use() const { return open_.size() + (others_ ? others_() : 0); }
  std::size_t limit() const { return limit_; }
  /// More are open than may be: what could be closed without harm was.
  bool too_many() const { return open_.size() > limit_; }

 private:
  static constexpr std::size_t kBeyond = 4;

  std::size_t limit_;
  std::unordered_set<StreamId> open_;
  std::function<void()> make_room_;
  std::function<std::size_t()> others_;
};

}  // namespace fantail
