#include "common/transport/curve_key.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <array>
#include <cerrno>
#include <cstdlib>

#include "common/base/unique_fd.h"

namespace fantail {
namespace {

constexpr std::size_t kTextBytes = 40;  // Z85 of 32 bytes
using KeyText = std::array<char, kTextBytes + 1>;

tl::unexpected<Error> refused(const std::filesystem::path& file, const std::string& why) {
  return fail(ErrorCode::kInvalid, "key file " + file.string() + ": " + why);
}

}  // namespace

Status CurveKey::make(const std::filesystem::path& file) {
  KeyText public_half{};
  KeyText secret{};
  if (zmq_curve_keypair(public_half.data(), secret.data()) != 0) return fail_errno(zmq_errno(), "making a key");
  const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd && errno == EEXIST) {
    return fail(ErrorCode::kBusy, "key file " + file.string() + ": exists already; name another, or remove it first");
  }
  if (!fd) return fail_errno(errno, "key file " + file.string());
  secret[kTextBytes] = '\n';
  const bool written = ::write(fd.get(), secret.data(), secret.size()) == static_cast<ssize_t>(secret.size());
  if (written && ::fsync(fd.get()) == 0) return {};
  const int error = errno;
  ::unlink(file.c_str());
  return fail_errno(error, "key file " + file.string());
}

Result<CurveKey> CurveKey::load(const std::filesystem::path& file) {
  const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // a named pipe would wait for a writer
  if (!fd) return refused(file, error_of_errno(errno, "").context + "; 'fantail-state keygen FILE' makes one");
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, "key file " + file.string());
  if (!S_ISREG(status.st_mode)) return refused(file, "is no regular file; 'fantail-state keygen FILE' makes one");
  if ((status.st_mode & 077) != 0) {
    return refused(file, "others may read or write it; chmod 600 it, and make a new one if they did");
  }
  std::array<char, kTextBytes + 2> text{};
  const ssize_t n = ::read(fd.get(), text.data(), text.size());
  std::string secret(text.data(), n > 0 ? static_cast<std::size_t>(n) : 0);
  if (secret.ends_with('\n')) secret.pop_back();
  KeyText public_half{};
  if (secret.size() != kTextBytes || zmq_curve_public(public_half.data(), secret.c_str()) != 0) {
    return refused(file, "is no key, which is 40 characters of Z85; 'fantail-state keygen FILE' makes one");
  }
  return CurveKey(std::move(secret), public_half.data());
}

std::string key_file_of(const std::string& given) {
  if (!given.empty()) return given;
  const char* from_environment = std::getenv("FANTAIL_KEY_FILE");
  return from_environment == nullptr ? "" : from_environment;
}

}  // namespace fantail
