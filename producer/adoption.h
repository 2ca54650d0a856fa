#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string_view>

#include "common/base/result.h"
#include "producer/tailed_file.h"

namespace fantail {

/// Bytes that may be those of a known stream: of a file, or of what an archive holds.
class Content {
 public:
  virtual ~Content() = default;
  virtual std::uint64_t size() const = 0;
  /// Fills `buffer` from `offset` on, as far as there is something; returns how much.
  virtual Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> buffer) = 0;
  /// Whether it can tell the bytes before each of `ends`, and its size; without any, its beginning. If not, that is on
  /// its way.
  virtual bool tells(std::span<const std::uint64_t> /*ends*/) { return true; }
};

/// A stream that a new file may be the copy of.
struct KnownStream {
  enum class State : std::uint8_t {
    kReadable,  ///< its file is there and holds what was read of it
    kAway,      ///< its file is not where it was, and may be found yet
    kGone,      ///< its file is truncated, rewritten or deleted; the stream can go on in a copy
    kOver,      ///< its end was told to the world
  };
  State state = State::kOver;
  Fingerprint fingerprint;
  bool kin = false;             ///< their names are related, see are_kin()
  Content* original = nullptr;  ///< of one that is kReadable
};

inline KnownStream known_stream(const Fingerprint& fingerprint, KnownStream::State state, bool kin) {
  return {state, fingerprint, kin, nullptr};
}

enum class Verdict : std::uint8_t {
  kStranger,  ///< not its copy, or not certainly: a stream of its own
  kCopy,      ///< holds nothing that the stream has not
  kBacking,   ///< the stream's bytes can be read on from here
  kWait,      ///< what happens next to the stream's own file tells
};

/// Decides whether a file that nobody knows is the copy of a stream that is known: what copytruncate leaves, or a move
/// across file systems. Where it is not certain, the file is a stream of its own: bytes twice are better than bytes
/// lost (docs/decisions/0009-adopting-copies.md).
class Newcomer {
 public:
  /// `content` must outlive it.
  explicit Newcomer(Content& content);

  /// Whether a closer look is worth while, by its beginning alone; that of a short one may tell so only of relatives.
  enum class Likeness : std::uint8_t { kNo, kIfKin, kYes };
  Likeness likeness(const Fingerprint& stream);
  Verdict compare(const KnownStream& stream);

 private:
  bool begins_like(const Fingerprint& stream);
  bool continues(const Fingerprint& stream);
  bool is_beginning_of(Content& original);

  Content& content_;
  std::array<std::byte, Fingerprint::kHeadBytes> head_{};
  std::size_t head_length_ = 0;
  std::map<std::uint32_t, std::uint64_t> digests_;  ///< of its beginning, by length
};

/// Whether rotating may have made one name of the other: app.log and app.log.1, app-20261121.log, app.log~.
bool are_kin(std::string_view path, std::string_view other_path);

}  // namespace fantail
