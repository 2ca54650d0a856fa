#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <unordered_map>

namespace fantail {

class Archive;

/// Keeps the memory of all archives together below a limit: whoever was used least recently gives back what it has.
/// Those that are under way and were used just now are spared, so that none throws another back for ever; while they
/// take all there is, nobody else sets out. One thread.
class ArchiveBudget {
 public:
  static constexpr std::size_t kDefaultBytes = 32 * 1024 * 1024;
  explicit ArchiveBudget(std::size_t limit_bytes = kDefaultBytes) : limit_(limit_bytes) {}

  std::size_t bytes() const { return bytes_; }
  bool full() const { return bytes_ > limit_; }

  /// It was used now and has so many bytes; others may be released. One alone may exceed the limit.
  void used(Archive& archive, std::size_t bytes);
  /// It has none any more.
  void forget(Archive& archive);

 private:
  struct Share {
    std::list<Archive*>::iterator place;
    std::size_t bytes;
    std::uint64_t used;
  };
  std::size_t limit_;
  std::size_t bytes_ = 0;
  std::uint64_t uses_ = 0;
  std::list<Archive*> by_use_;  ///< the latest last
  std::unordered_map<Archive*, Share> shares_;
};

}  // namespace fantail
