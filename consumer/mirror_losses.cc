#include "consumer/mirror_losses.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "common/base/clock.h"

namespace fantail {
namespace {

constexpr const char* kList = ".losses.tsv";

}  // namespace

Status MirrorLosses::add(StreamId stream, ByteRange range, wire::LossReason reason, const std::string& file) {
  if (auto ok = read(); !ok) return ok;
  const std::string what =
      to_string(stream) + "\t" + std::to_string(range.from.raw) + "\t" + std::to_string(range.to.raw);
  if (listed_->contains(what)) return {};
  const std::string line =
      to_iso8601(wall_now()) + "\t" + what + "\t" + std::string(wire::to_string(reason)) + "\t" + file + "\n";
  if (auto ok = append(line); !ok) return ok;
  listed_->insert(what);
  return {};
}

Status MirrorLosses::read() {
  if (listed_) return {};
  std::ifstream list(tree_.path() + "/" + kList);
  std::set<std::string> listed;
  for (std::string line; std::getline(list, line);) {
    const auto begin = line.find('\t');
    auto end = begin;
    for (int field = 0; field < 3 && end != std::string::npos; ++field) end = line.find('\t', end + 1);
    if (end != std::string::npos) listed.insert(line.substr(begin + 1, end - begin - 1));
  }
  if (list.bad()) return fail(ErrorCode::kIo, tree_.path() + "/" + kList + ": cannot be read");
  listed_ = std::move(listed);
  return {};
}

Status MirrorLosses::append(const std::string& line) {
  UniqueFd list(::openat(tree_.fd(), kList, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0644));
  struct stat before {};
  if (!list || ::fstat(list.get(), &before) != 0) return fail_errno(errno, tree_.path() + "/" + kList);
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(list.get(), line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      if (done > 0) (void)!::ftruncate(list.get(), before.st_size);
      return fail_errno(error, tree_.path() + "/" + kList);
    }
    done += static_cast<std::size_t>(n);
  }
  return {};
}

}  // namespace fantail
