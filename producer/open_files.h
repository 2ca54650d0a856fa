#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <utility>

namespace fantail {

/// How many tailed files are open, and how many may be: a share of the descriptors that the process may have. One
/// thread.
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

  void before_open() {
    if (count_ >= limit_ && make_room_) make_room_();
  }
  void opened() { ++count_; }
  void closed() { --count_; }
  std::size_t count() const { return count_; }
  std::size_t limit() const { return limit_; }
  /// More are open than may be: what could be closed without harm was.
  bool too_many() const { return count_ > limit_; }

 private:
  std::size_t limit_;
  std::size_t count_ = 0;
  std::function<void()> make_room_;
};

}  // namespace fantail
