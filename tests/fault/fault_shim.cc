// Preloaded into the programs under test: makes calls on files fail as a full or broken disk makes them fail.
//
// FANTAIL_FAULT_CONTROL names a file with a Control in it, mapped and shared: the driver of the test writes, every
// process reads. FANTAIL_FAULT_UNDER has folders, separated by ':'; calls on paths in them fail, no others, so sockets,
// eventfds and the files that are tailed are left alone. FANTAIL_FAULT_SEED makes the choices repeatable within one
// process.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

enum Call : std::size_t { kOpen, kRead, kWrite, kSync, kRename, kCalls };

/// Of each call how many in a million fail, and with which error. Written by fantail_faults.py.
struct Rule {
  std::uint32_t per_million;
  std::uint32_t error;
};
struct Control {
  std::array<Rule, kCalls> rules;
};

template <typename Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

const Control* map_control() {
  const char* path = std::getenv("FANTAIL_FAULT_CONTROL");
  if (path == nullptr) return nullptr;
  static const auto open_file = real<int(const char*, int, ...)>("open");
  const int fd = open_file(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return nullptr;
  void* page = ::mmap(nullptr, sizeof(Control), PROT_READ, MAP_SHARED, fd, 0);
  ::close(fd);
  return page == MAP_FAILED ? nullptr : static_cast<const Control*>(page);
}

std::vector<std::string> folders() {
  std::vector<std::string> out;
  const char* value = std::getenv("FANTAIL_FAULT_UNDER");
  std::string_view rest = value == nullptr ? "" : value;
  while (!rest.empty()) {
    const auto colon = rest.find(':');
    out.emplace_back(rest.substr(0, colon));
    rest.remove_prefix(colon == std::string_view::npos ? rest.size() : colon + 1);
  }
  return out;
}

bool is_below(std::string_view path) {
  static const std::vector<std::string> all = folders();
  for (const std::string& folder : all) {
    if (path.starts_with(folder) && (path.size() == folder.size() || path[folder.size()] == '/')) return true;
  }
  return false;
}

/// What the descriptor stands for; empty when it is no file.
bool is_below(int fd) {
  std::array<char, 4096> target{};
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t n = ::readlink(link.c_str(), target.data(), target.size());
  return n > 0 && target.front() == '/' && is_below(std::string_view(target.data(), static_cast<std::size_t>(n)));
}

/// True: the call is to fail, with errno set. Cheap while nothing is to fail.
template <typename Where>
bool fails(Call call, Where where) {
  static const Control* const control = map_control();
  if (control == nullptr) return false;
  const std::uint32_t per_million =
      std::atomic_ref(const_cast<std::uint32_t&>(control->rules[call].per_million)).load();
  if (per_million == 0) return false;
  thread_local std::minstd_rand random([] {
    const char* seed = std::getenv("FANTAIL_FAULT_SEED");
    return static_cast<std::uint32_t>(seed == nullptr ? 1 : std::strtoul(seed, nullptr, 10));
  }());
  if (std::uniform_int_distribution<std::uint32_t>(0, 999'999)(random) >= per_million) return false;
  const int before = errno;
  const bool hit = is_below(where);
  errno = hit ? static_cast<int>(control->rules[call].error) : before;
  return hit;
}

/// A path for openat and renameat: absolute, or below a directory that is in the folders.
bool fails_at(Call call, int directory, const char* path) {
  return path[0] == '/' || directory == AT_FDCWD ? fails(call, std::string_view(path)) : fails(call, directory);
}

mode_t mode_of(int flags, va_list arguments) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
}

}  // namespace

// NOLINTBEGIN(bugprone-reserved-identifier): these are the names of libc.
extern "C" {

#define FANTAIL_OPEN(NAME)                                \
  int NAME(const char* path, int flags, ...) {            \
    va_list arguments;                                    \
    va_start(arguments, flags);                           \
    const mode_t mode = mode_of(flags, arguments);        \
    va_end(arguments);                                    \
    if (fails(kOpen, std::string_view(path))) return -1;  \
    static const auto next = real<decltype(NAME)>(#NAME); \
    return next(path, flags, mode);                       \
  }
#define FANTAIL_OPENAT(NAME)                                  \
  int NAME(int directory, const char* path, int flags, ...) { \
    va_list arguments;                                        \
    va_start(arguments, flags);                               \
    const mode_t mode = mode_of(flags, arguments);            \
    va_end(arguments);                                        \
    if (fails_at(kOpen, directory, path)) return -1;          \
    static const auto next = real<decltype(NAME)>(#NAME);     \
    return next(directory, path, flags, mode);                \
  }
FANTAIL_OPEN(open)
FANTAIL_OPEN(open64)
FANTAIL_OPENAT(openat)
FANTAIL_OPENAT(openat64)

/// openat2 has no function of its own in libc.
long syscall(long number, ...) noexcept {
  va_list arguments;
  va_start(arguments, number);
  std::array<long, 6> a{};
  for (long& argument : a) argument = va_arg(arguments, long);
  va_end(arguments);
  if (number == SYS_openat2 && fails_at(kOpen, static_cast<int>(a[0]), reinterpret_cast<const char*>(a[1]))) return -1;
  static const auto next = real<long(long, ...)>("syscall");
  return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

ssize_t pread(int fd, void* buffer, size_t count, off_t offset) {
  if (fails(kRead, fd)) return -1;
  static const auto next = real<decltype(pread)>("pread");
  return next(fd, buffer, count, offset);
}
ssize_t pread64(int fd, void* buffer, size_t count, off64_t offset) {
  if (fails(kRead, fd)) return -1;
  static const auto next = real<decltype(pread64)>("pread64");
  return next(fd, buffer, count, offset);
}
ssize_t write(int fd, const void* buffer, size_t count) {
  if (fails(kWrite, fd)) return -1;
  static const auto next = real<decltype(write)>("write");
  return next(fd, buffer, count);
}
ssize_t pwrite(int fd, const void* buffer, size_t count, off_t offset) {
  if (fails(kWrite, fd)) return -1;
  static const auto next = real<decltype(pwrite)>("pwrite");
  return next(fd, buffer, count, offset);
}
ssize_t pwrite64(int fd, const void* buffer, size_t count, off64_t offset) {
  if (fails(kWrite, fd)) return -1;
  static const auto next = real<decltype(pwrite64)>("pwrite64");
  return next(fd, buffer, count, offset);
}
int fsync(int fd) {
  if (fails(kSync, fd)) return -1;
  static const auto next = real<decltype(fsync)>("fsync");
  return next(fd);
}
int fdatasync(int fd) {
  if (fails(kSync, fd)) return -1;
  static const auto next = real<decltype(fdatasync)>("fdatasync");
  return next(fd);
}
int syncfs(int fd) noexcept {
  if (fails(kSync, fd)) return -1;
  static const auto next = real<int(int)>("syncfs");
  return next(fd);
}
int rename(const char* from, const char* to) noexcept {
  if (fails(kRename, std::string_view(from))) return -1;
  static const auto next = real<int(const char*, const char*)>("rename");
  return next(from, to);
}
int renameat(int from_directory, const char* from, int to_directory, const char* to) noexcept {
  if (fails_at(kRename, from_directory, from)) return -1;
  static const auto next = real<int(int, const char*, int, const char*)>("renameat");
  return next(from_directory, from, to_directory, to);
}

}  // extern "C"
// NOLINTEND
