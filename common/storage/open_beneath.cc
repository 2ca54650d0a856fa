#include "common/storage/open_beneath.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace fantail {
namespace {

UniqueFd open_together(int directory, const std::string& name, int flags, mode_t mode) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags);
  how.mode = (flags & O_CREAT) != 0 ? mode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return UniqueFd(static_cast<int>(::syscall(SYS_openat2, directory, name.c_str(), &how, sizeof how)));
}

/// Each part with its own openat, so that O_NOFOLLOW holds for each.
UniqueFd open_one_by_one(int directory, const std::string& name, int flags, mode_t mode) {
  UniqueFd parent;
  std::size_t begin = 0;
  for (auto slash = name.find('/'); slash != std::string::npos; slash = name.find('/', begin)) {
    const std::string part = name.substr(begin, slash - begin);
    UniqueFd next(
        ::openat(parent ? parent.get() : directory, part.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!next) return next;
    parent = std::move(next);
    begin = slash + 1;
  }
  return UniqueFd(::openat(parent ? parent.get() : directory, name.c_str() + begin, flags, mode));
}

}  // namespace

UniqueFd open_beneath(int directory, const std::string& name, int flags, mode_t mode, Resolve how) {
  flags |= O_NOFOLLOW | O_CLOEXEC;
  if (how == Resolve::kTogether) {
    UniqueFd fd = open_together(directory, name, flags, mode);
    // EAGAIN: a directory was renamed meanwhile. EPERM is what containers say of calls that they do not know.
    if (fd || (errno != ENOSYS && errno != EPERM && errno != EAGAIN)) return fd;
  }
  return open_one_by_one(directory, name, flags, mode);
}

int make_directories_beneath(int directory, const std::string& name, mode_t mode) {
  int made = 0;
  UniqueFd parent;
  std::size_t begin = 0;
  for (auto slash = name.find('/'); slash != std::string::npos; slash = name.find('/', begin)) {
    const std::string part = name.substr(begin, slash - begin);
    const int at = parent ? parent.get() : directory;
    if (::mkdirat(at, part.c_str(), mode) == 0) {
      ++made;
    } else if (errno != EEXIST) {
      return -1;
    }
    parent = UniqueFd(::openat(at, part.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!parent) return -1;
    begin = slash + 1;
  }
  return made;
}

}  // namespace fantail
