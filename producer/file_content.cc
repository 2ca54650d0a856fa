#include "producer/file_content.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "producer/pread_fully.h"

namespace fantail {

Result<FileContent> FileContent::open(const std::string& path, FileKey key) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd) return fail_errno(errno, path);
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, path);
  if (FileKey{status.st_dev, status.st_ino} != key) {
    return fail(ErrorCode::kNotFound, path + ": another file is there now");
  }
  const int raw = fd.get();
  return FileContent(std::move(fd), raw, static_cast<std::uint64_t>(status.st_size));
}

Result<FileContent> FileContent::borrow(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, "fstat");
  return FileContent({}, fd, static_cast<std::uint64_t>(status.st_size));
}

Result<std::size_t> FileContent::read_at(std::uint64_t offset, std::span<std::byte> buffer) {
  return pread_fully(fd_, buffer, offset);
}

Result<CopyRecord> describe_copy(const std::string& path, FileKey key, StreamId stream, std::uint64_t size) {
  TailedFile file(path, key, {});
  if (auto ok = file.skip_to(FileOffset{size}); !ok) return tl::unexpected(ok.error());
  return CopyRecord{key, path, stream, file.fingerprint()};
}

bool is_copy_still(const CopyRecord& copy, const std::string& path, bool or_more) {
  TailedFile file(path, copy.key, copy.fingerprint);
  const auto look = file.look(true);
  return look && (or_more || look->size == copy.fingerprint.cursor.raw);
}

std::map<FileKey, std::string> files_in_directory(const std::filesystem::path& directory) {
  std::map<FileKey, std::string> out;
  struct stat status {};
  if (::stat(directory.c_str(), &status) != 0) return out;
  const std::unique_ptr<DIR, int (*)(DIR*)> handle(::opendir(directory.c_str()), ::closedir);
  if (!handle) return out;
  while (const dirent* entry = ::readdir(handle.get())) {
    // A mount point has another device; what is opened by this key is not there then.
    if (entry->d_type == DT_REG || entry->d_type == DT_UNKNOWN) {
      out.emplace(FileKey{status.st_dev, entry->d_ino}, (directory / entry->d_name).string());
    }
  }
  return out;
}

}  // namespace fantail
