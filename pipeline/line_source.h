#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/base/unique_fd.h"
#include "pipeline/job_source.h"

namespace fantail::pipeline {

/// Jobs as the lines of a file, which is the queue: line N is job N, from 1 on. Only where some lines begin is kept in
/// memory, 8 bytes for each 256 lines. The file must not change meanwhile; that is noticed by its length. One thread.
class LineSource final : public JobSource {
 public:
  /// kInvalid: it is no regular file (a pipe cannot be read twice: put it into a file first).
  static Result<LineSource> open(std::filesystem::path path);
  /// All that comes from `fd`, until its end, in a temporary file. `name`: for messages.
  static Result<LineSource> copy_of(int fd, const std::string& name);

  /// Looks through the next MiB or so of the file for lines. Returns how many are new; none when it was complete.
  Result<std::uint64_t> look_on() override;
  std::uint64_t lines() const { return lines_; }  ///< found so far
  bool complete() const override { return complete_; }

  /// One of the lines found, without its end. Cheap for the one behind the last that was asked for. kInvalid: longer
  /// than kMaxJobBytes, or the file has changed.
  Result<std::string> job(std::uint64_t number) override;

  /// The same for the same file, almost surely another one for another: of all of it, or of its length
  /// and its first and last MiB where it is longer than 1 GiB.
  Result<std::string> fingerprint() const override;

 private:
  static constexpr std::uint64_t kMarkEvery = 256;

  LineSource(std::filesystem::path path, UniqueFd fd, std::uint64_t bytes)
      : path_(std::move(path)), fd_(std::move(fd)), bytes_(bytes) {}
  Result<std::string> read(std::uint64_t offset, std::size_t most) const;
  Status fill(std::uint64_t offset);

  std::filesystem::path path_;
  UniqueFd fd_;
  std::uint64_t bytes_;  ///< of the file, when it was opened
  std::uint64_t lines_ = 0;
  std::uint64_t looked_ = 0;  ///< up to this offset
  bool in_line_ = false;      ///< bytes of an unfinished line were seen
  bool complete_ = false;
  std::vector<std::uint64_t> marks_{0};  ///< where the lines 1, 257, 513, ... begin
  std::uint64_t next_number_ = 1;        ///< the line at next_offset_
  std::uint64_t next_offset_ = 0;
  std::string window_;  ///< of the file, from window_offset_ on
  std::uint64_t window_offset_ = 0;
};

}  // namespace fantail::pipeline
