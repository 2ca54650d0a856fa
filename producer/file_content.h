#pragma once

#include <string>

#include "common/base/unique_fd.h"
#include "producer/adoption.h"

namespace fantail {

/// The bytes of an open file, as many as there were when it was opened.
class FileContent final : public Content {
 public:
  /// kNotFound if another file is there now.
  static Result<FileContent> open(const std::string& path, FileKey key);
  /// What somebody else has open, and keeps open.
  static Result<FileContent> borrow(int fd);

  std::uint64_t size() const override { return size_; }
  Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> buffer) override;
  UniqueFd take_fd() { return std::move(owned_); }

 private:
  FileContent(UniqueFd owned, int fd, std::uint64_t size) : owned_(std::move(owned)), fd_(fd), size_(size) {}

  UniqueFd owned_;
  int fd_;
  std::uint64_t size_;
};

/// A file that is there and is not sent, because a stream has its bytes.
struct CopyRecord {
  FileKey key;
  std::string path;
  StreamId stream;          ///< whose copy; it may be finished and forgotten
  Fingerprint fingerprint;  ///< at its end
};

/// Of its first `size` bytes, those that were compared: what was appended since then makes it another file, see
/// is_copy_still(). An error if they cannot be read.
Result<CopyRecord> describe_copy(const std::string& path, FileKey key, StreamId stream, std::uint64_t size);
/// Whether the file at `path` still holds those bytes and no others; `or_more`: it may have grown.
bool is_copy_still(const CopyRecord& copy, const std::string& path, bool or_more = false);

/// The regular files of a directory, links not followed.
std::map<FileKey, std::string> files_in_directory(const std::filesystem::path& directory);

}  // namespace fantail
