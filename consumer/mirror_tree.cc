#include "consumer/mirror_tree.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "common/base/log.h"
#include "common/storage/open_beneath.h"

namespace fantail {
namespace {

/// The last part of a name.
const char* base_of(const std::string& name) { return name.c_str() + (name.rfind('/') + 1); }

}  // namespace

Result<MirrorTree> MirrorTree::open(const std::string& directory) {
  std::error_code ec;
  auto absolute = std::filesystem::absolute(directory, ec).lexically_normal();
  if (!absolute.has_filename() && absolute.has_relative_path()) absolute = absolute.parent_path();
  std::filesystem::create_directories(absolute, ec);
  UniqueFd root(::open(absolute.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root) {
    return fail(ErrorCode::kInvalid, "--output 'mirror:" + directory +
                                         "': cannot use the directory: " + std::generic_category().message(errno) +
                                         "; name one that this user may write to");
  }
  if (::flock(root.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return fail(ErrorCode::kBusy,
                "--output 'mirror:" + directory + "': another consumer mirrors into this directory; give each its own");
  }
  return MirrorTree(absolute.string(), std::move(root));
}

tl::unexpected<Error> MirrorTree::problem(const std::string& name) const {
  const int error = errno;
  const bool in_the_way = error == ELOOP || error == ENOTDIR;
  return fail_errno(error, path_ + "/" + name + (in_the_way ? " (links are not followed)" : ""));
}

Status MirrorTree::make_directories(const std::string& name) {
  const int made = make_directories_beneath(root_.get(), name);
  if (made < 0) return problem(name);
  names_changed_ = names_changed_ || made > 0;
  return {};
}

Result<UniqueFd> MirrorTree::open_file(const std::string& name) {
  UniqueFd fd = open_beneath(root_.get(), name, O_WRONLY);
  if (fd) return fd;
  if (errno != ENOENT) return problem(name);
  constexpr int kAnew = O_WRONLY | O_CREAT | O_EXCL;
  fd = open_beneath(root_.get(), name, kAnew, 0644);
  if (!fd && errno == ENOENT) {
    if (auto ok = make_directories(name); !ok) return tl::unexpected(ok.error());
    fd = open_beneath(root_.get(), name, kAnew, 0644);
  }
  if (!fd) return problem(name);
  names_changed_ = true;
  return fd;
}

Result<mode_t> MirrorTree::type(const std::string& name) const {
  const UniqueFd fd = open_beneath(root_.get(), name, O_PATH);
  struct stat status {};
  if (fd && ::fstat(fd.get(), &status) == 0) return status.st_mode & S_IFMT;
  if (errno == ENOENT) return mode_t{0};
  return problem(name);
}

bool MirrorTree::is_directory(const std::string& name) const {
  return static_cast<bool>(open_beneath(root_.get(), name, O_PATH | O_DIRECTORY));
}

Result<UniqueFd> MirrorTree::parent_of(const std::string& name) const {
  const auto slash = name.rfind('/');
  UniqueFd fd =
      open_beneath(root_.get(), slash == std::string::npos ? "." : name.substr(0, slash), O_PATH | O_DIRECTORY);
  if (!fd) return problem(name);
  return fd;
}

Status MirrorTree::rename(const std::string& from, const std::string& to) {
  if (auto ok = make_directories(to); !ok) return ok;
  const auto from_directory = parent_of(from);
  if (!from_directory) {
    return from_directory.error().code == ErrorCode::kNotFound ? Status{} : tl::unexpected(from_directory.error());
  }
  const auto to_directory = parent_of(to);
  if (!to_directory) return tl::unexpected(to_directory.error());
  if (::renameat(from_directory->get(), base_of(from), to_directory->get(), base_of(to)) != 0 && errno != ENOENT) {
    return fail_errno(errno, "cannot rename " + path_ + "/" + from);
  }
  names_changed_ = true;
  return {};
}

Status MirrorTree::keep() {
  struct stat status {};
  if (::fstat(root_.get(), &status) == 0 && status.st_nlink > 0) return {};
  std::error_code ec;
  std::filesystem::create_directories(path_, ec);
  UniqueFd root(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root) return fail_errno(errno, path_);
  log::error("the directory of mirrors was removed, it is made again", {{"path", path_}});
  root_ = std::move(root);
  return {};
}

}  // namespace fantail
