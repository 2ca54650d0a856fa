#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "common/base/log.h"
#include "consumer/cursor_store.h"
#include "consumer/line_sink.h"
#include "consumer/output_file.h"
#include "consumer/rotation.h"

namespace fantail {

/// Records of many streams merged into files, exactly once: the cursor store keeps each file's length and the cursors
/// of what is in it together; a restart cuts the file to that length and fetches the rest again. A path that ends in
/// .zst has zstd frames, and each checkpoint ends one.
///
/// A file leaves its path at a checkpoint only. With its last cursors the store gets the name it is to have; when that
/// is stored the file is renamed, and when that is durable the store forgets it and the next file is begun. So a file
/// under its new name never changes again. Lines that come in between wait in memory, up to OutputFile::kBufferBytes.
class FileSink final : public LineSink {
 public:
  using WallClock = std::function<WallTime()>;

  /// Finishes what a crash interrupted: a file that was to be renamed.
  static Result<std::unique_ptr<FileSink>> open(PathTemplate path, RecordFormat format, LineRules rules,
                                                Rotation rotation, CursorStore& store, WallClock clock = wall_now);
  ~FileSink() override;

  const std::string& key() const override { return key_; }
  Status flush(MonoTime now) override;
  Status prepare_checkpoint() override;
  Checkpoint checkpoint() override;
  void stored() override;
  bool drained() const override;

 protected:
  Status make_room(const StreamMeta& stream, WallTime time) override;
  void emit(const StreamMeta& stream, std::string_view output) override;

 private:
  struct Leaving {
    std::string to;       ///< the new name; empty: somebody else gave it one
    bool stored = false;  ///< and not before may it be renamed
  };
  struct Output {
    OutputFile file;
    WallTime began{};                  ///< first byte of the file; 0: none yet
    std::uint64_t committed = 0;       ///< length of the file in the store
    std::uint64_t checkpointed = 0;    ///< the same, in the last checkpoint
    bool dirty = false;                ///< lines since the last checkpoint
    bool moved = false;                ///< the file has another name, which somebody gave it
    std::optional<Leaving> leaving{};  ///< takes nothing more
    MonoTime used{};
  };
  using Outputs = std::map<std::string, Output>;

  FileSink(PathTemplate path, RecordFormat format, LineRules rules, Rotation rotation, CursorStore& store,
           WallClock clock);
  Status recover();
  Result<Output*> output_for(const StreamMeta& stream, WallTime time);
  Status open_output(const std::string& path, Output& output, bool known);
  Status write_out(const std::string& path, Output& output);
  Status carry_over(const std::string& path, Output& output);
  void open_due();
  Status finish_leaving();
  Outputs::iterator add_output(const std::string& path);
  void drop_output(Outputs::iterator output);
  void make_room_for_outputs(std::size_t count);
  Status open_directories();
  Status save(std::vector<Checkpoint::Output> outputs) { return store_.save({{key_, {}, std::move(outputs)}}, {}); }

  PathTemplate path_;
  std::string key_;
  Rotation rotation_;
  CursorStore& store_;
  WallClock clock_;
  ZstdFrames frames_;
  Outputs outputs_;
  std::set<std::string> directories_;       ///< with entries that are not durable yet
  std::vector<UniqueFd> directories_open_;  ///< of those, for the checkpoint that is being prepared
  log::Repeated rotation_log_;
  Output* current_ = nullptr;  ///< of the stream that make_room was called for last
  const StreamMeta* current_stream_ = nullptr;
  std::string current_path_;
  std::int64_t current_day_ = -1;
};

}  // namespace fantail
