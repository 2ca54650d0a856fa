#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>

#include "common/base/types.h"
#include "common/transport/frame.h"
#include "common/wire/messages.h"

namespace fantail {

/// What all streams together may keep in memory while they wait for something earlier.
class PendingBudget {
 public:
  explicit PendingBudget(std::size_t limit_bytes) : limit_(limit_bytes) {}
  bool take(std::size_t bytes) {
    if (bytes > limit_ - used_) return false;
    used_ += bytes;
    return true;
  }
  void give_back(std::size_t bytes) { used_ -= bytes; }
  std::size_t used() const { return used_; }

 private:
  std::size_t limit_;
  std::size_t used_ = 0;
};

/// Chunks of one stream that arrived before something earlier did, still encoded, in order of offset.
class RangeBuffer {
 public:
  struct Piece {
    wire::Chunk chunk;
    Frame payload;
  };

  explicit RangeBuffer(PendingBudget& budget) : budget_(&budget) {}
  RangeBuffer(RangeBuffer&& other) noexcept : budget_(other.budget_), pieces_(std::move(other.pieces_)) {
    other.pieces_.clear();
  }
  RangeBuffer& operator=(RangeBuffer&&) = delete;
  ~RangeBuffer() { clear(); }

  enum class Kept : std::uint8_t { kStored, kDuplicate, kNoRoom };
  Kept insert(const wire::Chunk& chunk, Frame&& payload) {
    const auto at = pieces_.upper_bound(chunk.offset);
    if (at != pieces_.begin() && std::prev(at)->second.chunk.end() >= chunk.end()) return Kept::kDuplicate;
    if (!budget_->take(cost(payload))) return Kept::kNoRoom;
    const auto same = pieces_.find(chunk.offset);  // shorter than the new one
    if (same != pieces_.end()) erase(same);
    pieces_.emplace(chunk.offset, Piece{chunk, std::move(payload)});
    return Kept::kStored;
  }

  /// The piece that holds the byte at `cursor`; pieces that end at or before it are dropped on the way.
  std::optional<Piece> take_at(FileOffset cursor) {
    while (!pieces_.empty()) {
      const auto first = pieces_.begin();
      if (first->first > cursor) return std::nullopt;
      if (first->second.chunk.end() <= cursor) {
        erase(first);
        continue;
      }
      Piece piece = std::move(first->second);
      budget_->give_back(cost(piece.payload));
      pieces_.erase(first);
      return piece;
    }
    return std::nullopt;
  }

  /// Where the first piece begins.
  std::optional<FileOffset> first() const {
    if (pieces_.empty()) return std::nullopt;
    return pieces_.begin()->first;
  }
  bool empty() const { return pieces_.empty(); }
  void clear() {
    while (!pieces_.empty()) erase(pieces_.begin());
  }

 private:
  using Pieces = std::map<FileOffset, Piece>;
  static constexpr std::size_t kOverhead = 256;  // per piece: map node, frame header, allocator
  static std::size_t cost(const Frame& payload) { return payload.size() + kOverhead; }
  void erase(Pieces::iterator it) {
    budget_->give_back(cost(it->second.payload));
    pieces_.erase(it);
  }
  PendingBudget* budget_;
  Pieces pieces_;
};

}  // namespace fantail
