#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace fantail {

/// Changes at each start of the system: what was not synced before may be lost.
std::string boot_id();

/// A file that only grows, and that is read at any offset: what a journal is made of. What append() has taken survives
/// the death of the process, and after sync() the loss of power. One thread.
class AppendFile {
 public:
  /// A new, empty file in the place of whatever is there.
  static Result<AppendFile> create(std::filesystem::path path);
  /// What is there. kNotFound where there is nothing.
  static Result<AppendFile> open(std::filesystem::path path);
  /// Without a name, in $TMPDIR or /tmp: gone when it is closed.
  static Result<AppendFile> temporary();

  /// Reads until `buffer` is full or the file ends; how many bytes it read.
  Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> buffer) const;
  /// Goes through the lines from the beginning on, each without its end, with the offset where it begins; stops when
  /// `on_line` returns false. Returns where the last line that was taken ends: a last line without an end is not
  /// offered.
  Result<std::uint64_t> for_each_line(
      const std::function<bool(std::string_view line, std::uint64_t offset)>& on_line) const;

  /// All or nothing: on error the file is as long as it was.
  Status append(std::string_view bytes);
  Status sync() const;
  Status cut_to(std::uint64_t length);
  /// After an append that is not to count: as cut_to(), a failure is logged.
  void take_back(std::uint64_t length);
  /// What is behind `length` does not count any more, but is left where it is until the next append or cut.
  void disregard_behind(std::uint64_t length) { length_ = length; }

  std::uint64_t length() const { return length_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  AppendFile(std::filesystem::path path, UniqueFd fd, std::uint64_t length)
      : path_(std::move(path)), fd_(std::move(fd)), length_(length) {}
  std::filesystem::path path_;
  UniqueFd fd_;
  std::uint64_t length_;
};

}  // namespace fantail
