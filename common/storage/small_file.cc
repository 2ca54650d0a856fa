#include "common/storage/small_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "common/base/unique_fd.h"

namespace fantail {

Result<std::string> read_small_file(const std::filesystem::path& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot read " + path.string());
  std::string contents(kMaxSmallFileBytes, '\0');
  const ssize_t n = ::read(fd.get(), contents.data(), contents.size());
  if (n < 0) return fail_errno(errno, "cannot read " + path.string());
  contents.resize(static_cast<std::size_t>(n));
  return contents;
}

Status replace_small_file(const std::filesystem::path& path, std::string_view contents) {
  if (contents.size() > kMaxSmallFileBytes) {
    return fail(ErrorCode::kInvalid, "cannot write " + path.string() + ": " + std::to_string(contents.size()) +
                                         " bytes, at most " + std::to_string(kMaxSmallFileBytes) + " could be read");
  }
  const std::string fresh = path.string() + ".new";
  const auto failed = [&](const char* doing) {
    auto error = fail_errno(errno, std::string("cannot ") + doing + " " + path.string());
    ::unlink(fresh.c_str());
    return error;
  };
  {
    const UniqueFd fd(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640));
    if (!fd) return failed("write");
    const ssize_t n = ::write(fd.get(), contents.data(), contents.size());
    if (n >= 0 && static_cast<std::size_t>(n) != contents.size()) errno = ENOSPC;
    if (n != static_cast<ssize_t>(contents.size()) || ::fsync(fd.get()) != 0) return failed("write");
  }
  if (std::rename(fresh.c_str(), path.c_str()) != 0) return failed("replace");
  const UniqueFd directory(::open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || ::fsync(directory.get()) != 0) return fail_errno(errno, "cannot sync " + path.string());
  return {};
}

}  // namespace fantail
