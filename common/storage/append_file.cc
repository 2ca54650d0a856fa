#include "common/storage/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <string>

#include "common/base/log.h"

namespace fantail {
namespace {

constexpr std::size_t kReadBytes = 1024 * 1024;

std::string what(const std::filesystem::path& path) { return "journal " + path.string(); }

}  // namespace

std::string boot_id() {
  std::string id;
  std::ifstream in("/proc/sys/kernel/random/boot_id");
  std::getline(in, id);
  return id;
}

Result<AppendFile> AppendFile::create(std::filesystem::path path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640));
  if (!fd) return fail_errno(errno, what(path));
  return AppendFile(std::move(path), std::move(fd), 0);
}

Result<AppendFile> AppendFile::open(std::filesystem::path path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) return fail_errno(errno, what(path));
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, what(path));
  return AppendFile(std::move(path), std::move(fd), static_cast<std::uint64_t>(status.st_size));
}

Result<AppendFile> AppendFile::temporary() {
  std::error_code ec;
  const auto directory = std::filesystem::temp_directory_path(ec);
  if (ec) return fail_errno(ec.value(), "a temporary file");
  UniqueFd fd(::open(directory.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(errno, "a temporary file in " + directory.string());
  return AppendFile(directory / "(unnamed)", std::move(fd), 0);
}

Result<std::size_t> AppendFile::read_at(std::uint64_t offset, std::span<std::byte> buffer) const {
  std::size_t done = 0;
  while (done < buffer.size()) {
    const ssize_t n = ::pread(fd_.get(), buffer.data() + done, buffer.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, what(path_));
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

Result<std::uint64_t> AppendFile::for_each_line(
    const std::function<bool(std::string_view line, std::uint64_t offset)>& on_line) const {
  std::string pending;
  std::uint64_t at = 0;  // of the first byte of `pending` in the file
  std::uint64_t offset = 0;
  std::string buffer(kReadBytes, '\0');
  for (;;) {
    const auto n = read_at(offset, std::as_writable_bytes(std::span(buffer.data(), buffer.size())));
    if (!n) return tl::unexpected(n.error());
    if (*n == 0) return at;
    offset += *n;
    const std::size_t seen = pending.size();  // has no end of a line in it
    pending.append(buffer, 0, *n);
    std::size_t from = 0;
    for (auto end = pending.find('\n', seen); end != std::string::npos; end = pending.find('\n', from)) {
      if (!on_line(std::string_view(pending).substr(from, end - from), at + from)) return at + from;
      from = end + 1;
    }
    pending.erase(0, from);
    at += from;
  }
}

Status AppendFile::append(std::string_view bytes) {
  std::uint64_t at = length_;
  for (std::string_view rest = bytes; !rest.empty();) {
    const ssize_t n = ::pwrite(fd_.get(), rest.data(), rest.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      auto error = fail_errno(n < 0 ? errno : EIO, what(path_));
      take_back(length_);  // half a line must not stay in front of the next one
      return error;
    }
    at += static_cast<std::uint64_t>(n);
    rest.remove_prefix(static_cast<std::size_t>(n));
  }
  length_ = at;
  return {};
}

Status AppendFile::sync() const {
  if (::fdatasync(fd_.get()) != 0) return fail_errno(errno, what(path_));
  return {};
}

Status AppendFile::cut_to(std::uint64_t length) {
  length_ = length;
  if (::ftruncate(fd_.get(), static_cast<off_t>(length_)) != 0) return fail_errno(errno, what(path_));
  return {};
}

void AppendFile::take_back(std::uint64_t length) {
  if (const auto ok = cut_to(length); !ok) log::error("cannot take back a record", {{"error", ok.error()}});
}

}  // namespace fantail
