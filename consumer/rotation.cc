#include "consumer/rotation.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "common/base/unique_fd.h"

namespace fantail {
namespace {

constexpr std::string_view kCompressed = ".zst";

bool exists(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0;
}

}  // namespace

bool Rotation::due(std::uint64_t length, WallTime began, WallTime now) const {
  if (length == 0) return false;
  if (bytes > 0 && length >= bytes) return true;
  // The clock may have been set meanwhile, either way.
  return every > Duration::zero() && std::abs(now.ns - began.ns) >= every.count();
}

bool is_compressed_name(std::string_view path) { return path.ends_with(kCompressed); }

std::string rotated_name(const std::string& path, WallTime now) {
  const std::string_view ending = is_compressed_name(path) ? kCompressed : "";
  const std::string stem = path.substr(0, path.size() - ending.size()) + "." + to_compact_utc(now);
  std::string name = stem + std::string(ending);
  for (int n = 1; exists(name); ++n) name = stem + "." + std::to_string(n) + std::string(ending);
  return name;
}

std::string file_of(const std::string& path) {
  std::error_code ec;
  if (!std::filesystem::is_symlink(path, ec)) return path;
  const auto file = std::filesystem::canonical(path, ec);
  return ec ? path : file.string();
}

Result<bool> rename_finished(const std::string& path, const std::string& to, std::uint64_t length) {
  if (exists(to)) return true;
  const std::string from = file_of(path);
  struct stat status {};
  if (::stat(from.c_str(), &status) != 0) {
    if (errno == ENOENT) return false;
    return fail_errno(errno, "output " + from);
  }
  if (static_cast<std::uint64_t>(status.st_size) != length) return false;  // somebody's, in the place of ours
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return true;
  const bool unsupported = errno == EINVAL || errno == ENOSYS;  // by this file system
  if (unsupported && ::rename(from.c_str(), to.c_str()) == 0) return true;
  return fail_errno(errno, "cannot rename " + from + " to " + to);
}

std::string directory_of(const std::string& path) {
  const auto parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

Status sync_directories(const std::set<std::string>& directories) {
  for (const auto& directory : directories) {
    const UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd && errno == ENOENT) continue;
    if (!fd || ::fsync(fd.get()) != 0) return fail_errno(errno, "directory " + directory);
  }
  return {};
}

}  // namespace fantail
