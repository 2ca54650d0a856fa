#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/base/unique_fd.h"
#include "consumer/zstd_frames.h"

namespace fantail {

/// The file at one path of a `file:` output, plain or of zstd frames, and the lines that wait in memory to be written.
/// When the file has left its path, close() it: the next open() begins another one, and lines that wait go into that.
class OutputFile {
 public:
  static constexpr std::size_t kBufferBytes = 256 * 1024;  ///< of lines, and so of a frame before compression

  /// `frames` (borrowed) makes frames of the lines; nullptr: they are written as they are.
  OutputFile(std::string path, ZstdFrames* frames) : path_(std::move(path)), frames_(frames) {}

  /// Opens or creates the file. What is behind `committed` is cut off; with no such length all of it stays in front.
  /// A compressed file that may end within a frame is renamed, because nothing behind that could be read. Adds the
  /// directories that may have got an entry.
  Status open(std::optional<std::uint64_t> committed, WallTime now, std::set<std::string>& directories);
  void close();
  bool is_open() const { return static_cast<bool>(fd_); }
  /// For fsync, an own descriptor of the open file.
  UniqueFd duplicate() const;

  /// Takes whole lines. What cannot be written at once waits; when more than kBufferBytes wait, write_out() first.
  void append(std::string_view lines);
  /// The same, without touching the file.
  void keep(std::string_view lines) { buffer_ += lines; }
  std::size_t waiting_bytes() const { return buffer_.size() + unwritten_.size(); }

  /// Hands what waits to the kernel: of a compressed file only whole buffers, so that frames do not get too small.
  Status write_out();
  /// Hands all that waits to the kernel, then length() is the end of a line and of a frame.
  Status finish_frame();
  std::uint64_t length() const { return length_; }  ///< handed to the kernel

  enum class Place : std::uint8_t { kHere, kMoved, kDeleted };
  /// Whether the open file is still the one at the path, or has only another name now, or none.
  Place place() const;
  /// Appends everything that `other`, which need not have a name any more, holds from `from` on. All or nothing.
  Status copy_from(const OutputFile& other, std::uint64_t from);

 private:
  Status open_descriptor(std::set<std::string>& directories);
  std::size_t put(std::string_view bytes, int& error);
  Status put_frame();

  std::string path_;
  ZstdFrames* frames_;
  UniqueFd fd_;
  bool regular_ = false;  ///< and no device or pipe
  std::uint64_t length_ = 0;
  std::string buffer_;     ///< lines
  std::string unwritten_;  ///< the rest of a frame
};

}  // namespace fantail
