#pragma once

#include <list>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "consumer/cursor_store.h"
#include "consumer/mirror_losses.h"
#include "consumer/mirror_tree.h"
#include "consumer/sink.h"

namespace fantail {

/// DIR/<node>/<path>, byte for byte: every chunk is written at the source's own offset, so writing twice changes
/// nothing. The newest stream of a path has the plain name, older ones `<path>@<UTC first seen>-<first 8 hex of stream
/// id>`. Paths come from the wire: they never lead out of DIR (safe_components and MirrorTree).
class MirrorSink final : public Sink {
 public:
  static Result<std::unique_ptr<MirrorSink>> open(const std::string& directory, CursorStore& store);

  const std::string& key() const override { return key_; }
  void expect(std::span<const StreamMeta> streams) override;
  Result<FileOffset> open_stream(const StreamMeta& stream, FileOffset cursor) override;
  Status write(const StreamMeta& stream, FileOffset offset, std::span<const std::byte> bytes,
               WallTime read_time) override;
  Status lose(const StreamMeta& stream, ByteRange range, wire::LossReason reason) override;
  Status seal(const StreamMeta& stream, FileOffset final_length) override;
  Status flush(MonoTime) override { return {}; }
  Status prepare_checkpoint() override;
  std::vector<StreamId> take_spoilt() override { return std::exchange(spoilt_, {}); }
  Checkpoint checkpoint() override;
  bool drained() const override { return true; }

 private:
  struct Mirror {
    CursorStore::MirrorRow row;
    UniqueFd fd;
    FileOffset position;
    std::list<StreamId>::iterator recent;
    bool is_open = false;
  };
  MirrorSink(MirrorTree tree, CursorStore& store);
  Status recover();
  Result<int> descriptor(StreamId id, Mirror& mirror);
  Status enter(const StreamMeta& stream);
  bool is_free(const std::string& path) const;
  Status make_way(const std::string& path);
  Status make_way_for_directories(const std::string& path);
  Status move_mirror(StreamId id, Mirror& mirror, const std::string& to);
  void close(Mirror& mirror);
  enum class Condition : std::uint8_t { kGood, kCut, kGone, kReplaced };
  Condition condition_of(const Mirror& mirror) const;
  void spoil(StreamId id, Mirror& mirror, Condition how);
  Status set_aside(const std::string& path);

  MirrorTree tree_;
  std::string key_;
  CursorStore& store_;
  MirrorLosses losses_;
  std::unordered_map<StreamId, Mirror> mirrors_;
  std::unordered_map<std::string, StreamId> live_;  ///< path → the stream that has the plain name
  std::list<StreamId> recent_;                      ///< open descriptors, latest first
  std::set<StreamId> dirty_;                        ///< written since the last checkpoint
  std::vector<UniqueFd> closed_dirty_;              ///< of those, descriptors that had to make room
  std::vector<StreamId> spoilt_;                    ///< by somebody else, and not told yet
};

/// The path components under which `path` is kept: none of them empty, `.` or `..`, or longer than a name may be.
std::vector<std::string> safe_components(std::string_view path);

}  // namespace fantail
