#include "producer/file_removal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace fantail {
namespace {

/// Granted only while nobody has the file open for writing, and who wants to open it so has to wait (fcntl(2)).
class ReadLease {
 public:
  explicit ReadLease(int fd) : fd_(fd) {
    granted_ = ::fcntl(fd, F_SETLEASE, F_RDLCK) == 0;
    refused_ = !granted_ && (errno == EAGAIN || errno == EBUSY);
  }
  ~ReadLease() {
    if (granted_) ::fcntl(fd_, F_SETLEASE, F_UNLCK);
  }
  ReadLease(const ReadLease&) = delete;
  ReadLease& operator=(const ReadLease&) = delete;

  bool granted() const { return granted_; }
  bool refused() const { return refused_; }  ///< there is a writer; else it is this file system, or our rights
  bool wanted_by_a_writer() const { return granted_ && ::fcntl(fd_, F_GETLEASE) != F_RDLCK; }

 private:
  int fd_;
  bool granted_ = false;
  bool refused_ = false;
};

bool leads_to(const std::string& path, FileKey key) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) && status.st_dev == key.device &&
         status.st_ino == key.inode;
}

/// Nothing when it is as it was; else why not.
std::string change_of(const RemovableFile& file, const ReadLease& lease, Duration quiet) {
  struct stat status {};
  if (::fstat(file.fd, &status) != 0) return std::generic_category().message(errno);
  if (status.st_nlink != 1) return "it has another name, too";
  if (static_cast<std::uint64_t>(status.st_size) != file.length) return "its length changed";
  const std::int64_t modified = std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
  if (!lease.granted() && wall_now().ns - modified < quiet.count()) return "it was modified a moment ago";
  if (lease.wanted_by_a_writer()) return "somebody opens it for writing";
  return {};
}

}  // namespace

tl::expected<void, LeftAlone> remove_file(const RemovableFile& file, Duration quiet,
                                          const std::function<bool()>& intact) {
  const auto left = [](std::string reason, const std::string& path) {
    return tl::unexpected(LeftAlone{std::move(reason), path});
  };
  const auto failed = [&](const std::string& path) { return left(std::generic_category().message(errno), path); };
  const ReadLease lease(file.fd);
  if (lease.refused()) return left("somebody has it open for writing", file.path);
  if (auto change = change_of(file, lease, quiet); !change.empty()) return left(std::move(change), file.path);
  if (!leads_to(file.path, file.key)) return left("its path leads elsewhere, or through a link", file.path);
  if (!intact()) return left("its content changed", file.path);
  if (file.path != file.aside && ::rename(file.path.c_str(), file.aside.c_str()) != 0) return failed(file.path);
  std::string reason = leads_to(file.aside, file.key) ? change_of(file, lease, quiet) : "another file took its place";
  if (reason.empty()) {
    if (::unlink(file.aside.c_str()) == 0) return {};
    reason = std::generic_category().message(errno);
  }
  if (file.path == file.aside) return left(std::move(reason), file.path);
  // Never over a file that came there meanwhile.
  if (::link(file.aside.c_str(), file.path.c_str()) != 0) return left(std::move(reason), file.aside);
  ::unlink(file.aside.c_str());
  return left(std::move(reason), file.path);
}

}  // namespace fantail
