#include "producer/file_system.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>

namespace fantail {
namespace {

// As in statfs(2), linux/magic.h and the sources of those that are in neither.
constexpr std::array<std::uint32_t, 14> kNetworkKinds = {
    0x00006969,  // NFS
    0x0000517B,  // SMB
    0xFF534D42,  // CIFS
    0xFE534D42,  // SMB2
    0x65735546,  // FUSE: sshfs, glusterfs, s3fs
    0x01021997,  // 9p
    0x00C36400,  // Ceph
    0x0BD00BD0,  // Lustre
    0x47504653,  // GPFS
    0x73757245,  // Coda
    0x5346414F,  // AFS
    0x6B414653,  // AFS of the kernel
    0x7461636F,  // OCFS2
    0x01161970,  // GFS2
};

WallTime from(std::int64_t seconds, std::int64_t nanoseconds) { return {seconds * 1'000'000'000 + nanoseconds}; }

}  // namespace

bool is_network_file_system(std::uint32_t kind) {
  return std::find(kNetworkKinds.begin(), kNetworkKinds.end(), kind) != kNetworkKinds.end();
}

bool on_network_file_system(const std::string& directory) {
  struct statfs status {};
  return ::statfs(directory.c_str(), &status) == 0 && is_network_file_system(static_cast<std::uint32_t>(status.f_type));
}

std::optional<WallTime> birth_of(const std::string& path) {
  struct statx status {};
  if (::statx(AT_FDCWD, path.c_str(), 0, STATX_BTIME, &status) != 0 || (status.stx_mask & STATX_BTIME) == 0) {
    return std::nullopt;
  }
  return from(status.stx_btime.tv_sec, status.stx_btime.tv_nsec);
}

std::optional<WallTime> last_change_of(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return std::nullopt;
  return from(status.st_ctim.tv_sec, status.st_ctim.tv_nsec);
}

}  // namespace fantail
