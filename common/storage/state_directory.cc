#include "common/storage/state_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "common/base/clock.h"
#include "common/storage/small_file.h"

namespace fantail {

Result<StateDirectory> StateDirectory::open(const std::filesystem::path& path) {
  const auto unusable = [](int error, const std::filesystem::path& what) {
    const bool passes = error == ENOSPC || error == EDQUOT || error == EIO || error == EMFILE || error == ENFILE;
    return fail(
        passes ? ErrorCode::kIo : ErrorCode::kInvalid,
        "state directory: " + error_of_errno(error, what.string()).context + "; choose another with --state-dir");
  };
  std::error_code ec;
  // Positions and paths of files are nobody else's business.
  if (std::filesystem::create_directories(path, ec))
    std::filesystem::permissions(path, std::filesystem::perms(0750), ec);
  if (ec) return unusable(ec.value(), path);
  const auto lock_path = path / "lock";
  UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640));
  if (!lock) return unusable(errno, lock_path);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    char pid[32] = {};
    const ssize_t n = ::pread(lock.get(), pid, sizeof pid - 1, 0);
    std::string holder(pid, n > 0 ? static_cast<std::size_t>(n) : 0);
    while (!holder.empty() && holder.back() == '\n') holder.pop_back();
    return fail(ErrorCode::kBusy, "state directory " + path.string() + " is in use by process " +
                                      (holder.empty() ? "unknown" : holder) +
                                      "; end it, or choose another with --state-dir");
  }
  const std::string pid = std::to_string(::getpid()) + "\n";
  // The pid is for the message above only; the lock itself is the kernel's.
  if (::ftruncate(lock.get(), 0) != 0 || ::pwrite(lock.get(), pid.data(), pid.size(), 0) < 0) {
    return fail_errno(errno, "state directory: cannot write " + lock_path.string());
  }
  return StateDirectory(std::filesystem::absolute(path), std::move(lock));
}

Result<NodeId> StateDirectory::node_id() const {
  const auto path = path_ / "node";
  const auto text = read_small_file(path);
  if (text) {
    const auto id = id_from_hex<NodeId>(std::string_view(*text).substr(0, 32));
    if (!id) return fail(ErrorCode::kCorrupt, path.string() + ": is no node id; remove it to begin as a new node");
    return *id;
  }
  if (text.error().code != ErrorCode::kNotFound) return tl::unexpected(text.error());
  const auto id = random_id<NodeId>();
  if (auto ok = replace_small_file(path, to_string(id) + "\n"); !ok) return tl::unexpected(ok.error());
  return id;
}

Result<std::filesystem::path> StateDirectory::set_aside(const std::string& file) const {
  const std::string suffix = ".damaged-" + to_compact_utc(wall_now());
  std::filesystem::path kept;
  for (const char* companion : {"", "-wal", "-shm"}) {
    const auto from = path_ / (file + companion);
    if (!std::filesystem::exists(from)) continue;
    const auto to = path_ / (file + suffix + companion);
    if (std::rename(from.c_str(), to.c_str()) != 0) return fail_errno(errno, "cannot set aside " + from.string());
    if (kept.empty()) kept = to;
  }
  return kept;
}

std::filesystem::path default_state_directory(const std::string& program) {
  if (const char* systemd = std::getenv("STATE_DIRECTORY"); systemd != nullptr && *systemd != '\0') {
    const std::string list = systemd;  // several are separated by ':'
    return list.substr(0, list.find(':'));
  }
  if (::geteuid() == 0) return std::filesystem::path("/var/lib/fantail") / program;
  if (const char* xdg = std::getenv("XDG_STATE_HOME"); xdg != nullptr && *xdg == '/') {
    return std::filesystem::path(xdg) / "fantail" / program;
  }
  const char* home = std::getenv("HOME");
  return std::filesystem::path(home != nullptr ? home : "/tmp") / ".local/state/fantail" / program;
}

}  // namespace fantail
