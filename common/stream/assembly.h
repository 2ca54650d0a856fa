#pragma once

// What StreamSubscriber keeps of each source and each stream. For its own files only.
#include "common/stream/range_buffer.h"
#include "common/stream/stream_subscriber.h"

namespace fantail {

/// A producer node, connected or not.
struct StreamSubscriber::Node {
  NodeView view;
  std::optional<PeerId> peer;
  std::uint64_t known_sequence = 0;  ///< everything up to here was told of
  std::uint64_t version = 0;         ///< the greatest that the node announced
  std::uint64_t list_covers = 0;     ///< the version when the List under way was asked for
  bool listing_all = false;          ///< that one began at 0
  std::set<StreamId> listed;         ///< by it, so far
  bool first_listing = true;         ///< of this run: what it tells existed before us
  bool listing = false;              ///< a List is under way
  std::uint64_t list_after = 0;
  MonoTime list_asked{};
  std::vector<StreamId> streams;
  NodeActivity activity;
  std::set<StreamId> untold;  ///< committed, and the node has not been told
};

/// One stream being put together.
struct StreamSubscriber::Assembly {
  StreamId id;
  Node* node;
  FileOffset cursor;  ///< everything below was delivered or is lost
  FileOffset sent;    ///< the source says: broadcast up to here
  FileOffset head;    ///< the source says: exists up to here
  FileOffset passed;  ///< proven to be behind the broadcast: nothing below will come by itself
  FileOffset committed;
  bool sealed = false;
  bool sealed_told = false;
  bool blocked = false;                       ///< the receiver takes nothing of it now
  std::optional<FileOffset> first_broadcast;  ///< where the broadcast was joined
  RangeBuffer pending;
  GapDetector detector;
  FileOffset cursor_when_asked;
  std::optional<MonoTime> postponed;  ///< since when a gap at the end is not counted, as it may be in our own queue

  Assembly(StreamId stream, Node* owner, PendingBudget& budget, const RepairTiming& timing)
      : id(stream), node(owner), pending(budget), detector(timing) {}
};

struct StreamSubscriber::Orphans {
  RangeBuffer pending;
  MonoTime since;
};

}  // namespace fantail
