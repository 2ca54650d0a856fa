#pragma once

#include <map>
#include <string>

#include "consumer/cursor_store.h"
#include "consumer/line_sink.h"

namespace fantail {

/// Records of many streams merged into files, exactly once: the cursor store keeps each file's length and the cursors
/// of what is in it together; a restart cuts the file to that length and fetches the rest again.
class FileSink final : public LineSink {
 public:
  FileSink(PathTemplate path, RecordFormat format, CursorStore& store);
  ~FileSink() override;

  const std::string& key() const override { return key_; }
  Status flush(MonoTime now) override;
  Checkpoint checkpoint() override;
  bool drained() const override;

 protected:
  Status make_room(const StreamMeta& stream, WallTime time) override;
  void emit(const StreamMeta& stream, std::string_view output) override;

 private:
  struct Output {
    UniqueFd fd;
    std::uint64_t length = 0;  ///< handed to the kernel
    std::string buffer;        ///< not yet
    bool dirty = false;        ///< since the last checkpoint
    MonoTime used{};
  };
  Result<Output*> output_for(const StreamMeta& stream, WallTime time);
  Status open_output(const std::string& path, Output& output);
  Status write_out(const std::string& path, Output& output);
  void limit_open_files();

  PathTemplate path_;
  std::string key_;
  CursorStore& store_;
  std::map<std::string, Output> outputs_;
  std::size_t open_ = 0;
  Output* current_ = nullptr;  ///< of the stream that make_room was called for last
  const StreamMeta* current_stream_ = nullptr;
  std::string current_path_;
  std::int64_t current_day_ = -1;
};

}  // namespace fantail
