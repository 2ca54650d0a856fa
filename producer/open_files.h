#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <unordered_set>
#include <utility>

#include "common/base/types.h"
#include "common/base/unique_fd.h"

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

  /// A descriptor of the same share for a file that is no stream yet. OpenFiles must outlive it.
  class Guest {
   public:
    Guest() = default;
    Guest(Guest&& other) noexcept : fd_(std::move(other.fd_)), among_(std::exchange(other.among_, nullptr)) {}
    Guest& operator=(Guest&& other) noexcept {
      std::swap(fd_, other.fd_);
      std::swap(among_, other.among_);
      return *this;
    }
    ~Guest() { (void)take(); }

    explicit operator bool() const { return static_cast<bool>(fd_); }
    int get() const { return fd_.get(); }
    /// The caller's from now on, who counts it as a stream's.
    UniqueFd take() {
      if (among_ != nullptr) --std::exchange(among_, nullptr)->guests_;
      return std::move(fd_);
    }

   private:
    friend class OpenFiles;
    Guest(UniqueFd fd, OpenFiles* among) : fd_(std::move(fd)), among_(among) { ++among_->guests_; }

    UniqueFd fd_;
    OpenFiles* among_ = nullptr;
  };
  /// Nothing, and `fd` is closed, when the share is used up: half of it at most is for guests, so that streams can be
  /// read however many wait.
  Guest keep(UniqueFd fd) {
    if (!fd || in_use() >= limit_ || guests_ >= limit_ / 2) return {};
    return Guest(std::move(fd), this);
  }

  /// Makes room first. A few more than the limit may be open for a moment, when none could be closed: too_many() shows
  /// that something has to be given up.
  bool may_open() {
    if (in_use() >= limit_ && make_room_) make_room_();
    return in_use() < limit_ || in_use() - limit_ < kBeyond;
  }
  void opened(StreamId stream) { open_.insert(stream); }
  void closed(StreamId stream) { open_.erase(stream); }
  const std::unordered_set<StreamId>& streams() const { return open_; }
  std::size_t count() const { return open_.size(); }
  std::size_t in_use() const { return open_.size() + guests_; }
  std::size_t limit() const { return limit_; }
  /// More are open than may be: what could be closed without harm was.
  bool too_many() const { return open_.size() > limit_; }

 private:
  static constexpr std::size_t kBeyond = 4;

  std::size_t limit_;
  std::unordered_set<StreamId> open_;
  std::function<void()> make_room_;
  std::size_t guests_ = 0;
};

}  // namespace fantail
