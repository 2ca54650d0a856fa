#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>

#include "common/base/clock.h"
#include "common/transport/control_link.h"
#include "common/wire/messages.h"
#include "producer/tailed_file.h"

namespace fantail {

/// A stream of this node as consumers know it, all of them taken together. None of it is proven.
struct ToldStream {
  wire::StreamInfo info;                         ///< as told first, but `base` is the least that was told
  FileOffset lowest;                             ///< committed by the consumer that is furthest behind
  FileOffset highest;                            ///< and by the one that is furthest ahead
  FileOffset final_length;                       ///< the greatest that was told, where `sealed`
  bool sealed = false;                           ///< somebody takes it for complete
  bool disputed = false;                         ///< consumers tell of different files or beginnings
  std::map<std::uint32_t, std::uint64_t> heads;  ///< digests of the file's beginning, by length

  FileKey key() const { return {info.file.device, info.file.inode}; }
  /// The end of what is known to have been in it.
  FileOffset end() const { return std::max(highest, final_length); }
};

/// Collects what consumers know of the streams of a node that lost its registry: whom to ask next, and when it is
/// enough. Decides only: takes events and `now`, sends nothing.
class Recollection {
 public:
  /// `present`: files that are there now. What is complete everywhere and has no such file is not kept.
  explicit Recollection(std::set<FileKey> present) : present_(std::move(present)) {}

  void consumer_up(PeerId peer, bool durable, MonoTime now);
  void consumer_down(PeerId peer);
  /// A page of an answer. Pages of consumers that were not asked are ignored.
  void told(PeerId peer, const wire::Streams& page, MonoTime now);

  struct Question {
    PeerId peer;
    std::uint64_t after;
  };
  /// A List that is due: not asked yet, or not answered for too long.
  std::optional<Question> next_question(MonoTime now) const;
  void asked(PeerId peer, MonoTime now);

  /// Every durable consumer that is connected has answered, at least one has, and nobody else has come for a moment; or
  /// it has taken too long. Never while nobody is connected.
  bool enough(MonoTime now) const;
  /// When to look again although nothing happens.
  MonoTime due(MonoTime now) const { return now + (talks_.empty() ? Duration{1s} : Duration{100ms}); }

  const std::map<StreamId, ToldStream>& streams() const { return streams_; }
  std::uint64_t last_sequence() const { return last_sequence_; }  ///< the greatest that anybody knows of
  std::size_t answers() const { return answers_; }
  std::size_t unusable() const { return unusable_; }  ///< told without a file, or impossible, or too many

 private:
  struct Talk {
    bool durable = false;
    bool answered = false;
    std::uint64_t after = 0;
    std::optional<MonoTime> asked;
  };
  void take(const wire::StreamInfo& info);

  std::set<FileKey> present_;
  std::map<PeerId, Talk> talks_;
  std::map<StreamId, ToldStream> streams_;
  std::uint64_t last_sequence_ = 0;
  std::size_t answers_ = 0;
  std::size_t unusable_ = 0;
  MonoTime first_up_{};  ///< since then somebody has been connected
  MonoTime last_durable_up_{};
  MonoTime last_told_{};
};

}  // namespace fantail
