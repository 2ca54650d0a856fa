#include "consumer/file_sink.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "common/base/log.h"

namespace fantail {
namespace {

constexpr std::size_t kBufferBytes = 256 * 1024;
constexpr std::size_t kDirectBytes = 16 * 1024;  // runs of this size skip the buffer when it is empty
constexpr std::size_t kMaxOpen = 256;

/// Writes at `offset`; returns how much was written, which is less than all of it only on error.
std::size_t pwrite_fully(int fd, std::string_view bytes, std::uint64_t offset, int& error) {
  std::size_t done = 0;
  error = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::pwrite(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      error = errno;
      break;
    }
    done += static_cast<std::size_t>(n);
  }
  return done;
}

}  // namespace

FileSink::FileSink(PathTemplate path, RecordFormat format, CursorStore& store)
    : LineSink(std::move(format), std::nullopt),
      path_(std::move(path)),
      key_("file:" + std::filesystem::absolute(path_.text()).lexically_normal().string()),
      store_(store) {}
FileSink::~FileSink() = default;

Status FileSink::open_output(const std::string& path, Output& output) {
  std::error_code ec;
  const auto parent = std::filesystem::path(path).parent_path();
  if (!parent.empty()) std::filesystem::create_directories(parent, ec);  // what fails here fails at open, too
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  if (!fd) return fail_errno(errno, "output " + path);
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, "output " + path);
  auto size = static_cast<std::uint64_t>(status.st_size);
  const auto committed = store_.output_length(key_, path);
  if (!committed) {
    // Told before the first byte: after a crash what follows is cut off again.
    if (auto ok = store_.save({{key_, {}, {{path, size}}}}, {}); !ok) return ok;
  } else if (size > *committed) {
    if (::ftruncate(fd.get(), static_cast<off_t>(*committed)) != 0) return fail_errno(errno, "output " + path);
    size = *committed;
  } else if (size < *committed) {
    log::warn("an output is shorter than it was, going on at its end", {{"path", path}, {"bytes", size}});
  }
  output.fd = std::move(fd);
  output.length = size;
  ++open_;
  return {};
}

void FileSink::limit_open_files() {
  if (open_ < kMaxOpen) return;
  const auto oldest = std::min_element(outputs_.begin(), outputs_.end(), [](const auto& a, const auto& b) {
    const auto closable = [](const Output& o) { return o.fd && o.buffer.empty() && !o.dirty; };
    if (closable(a.second) != closable(b.second)) return closable(a.second);
    return a.second.used < b.second.used;
  });
  if (!oldest->second.fd || !oldest->second.buffer.empty() || oldest->second.dirty)
    return;  // all busy until the next checkpoint
  if (current_ == &oldest->second) current_ = nullptr;
  outputs_.erase(oldest);  // the store has its length
  --open_;
}

Result<FileSink::Output*> FileSink::output_for(const StreamMeta& stream, WallTime time) {
  constexpr std::int64_t kDayNs = 86'400'000'000'000;
  const std::int64_t day = path_.dated() ? time.ns / kDayNs : 0;
  if (current_ != nullptr && current_stream_ == &stream && current_day_ == day) return current_;
  std::string path = path_.expand(stream, time);
  auto found = outputs_.find(path);
  if (found == outputs_.end()) {
    limit_open_files();
    Output output;
    if (auto ok = open_output(path, output); !ok) return tl::unexpected(ok.error());
    found = outputs_.emplace(path, std::move(output)).first;
  }
  current_ = &found->second;
  current_->used = mono_now();
  current_stream_ = &stream;
  current_day_ = day;
  current_path_ = std::move(path);
  return current_;
}

Status FileSink::make_room(const StreamMeta& stream, WallTime time) {
  const auto output = output_for(stream, time);
  if (!output) return tl::unexpected(output.error());
  if ((*output)->buffer.size() < kBufferBytes) return {};
  return write_out(current_path_, **output);
}

void FileSink::emit(const StreamMeta&, std::string_view bytes) {
  Output& output = *current_;
  output.dirty = true;
  if (output.buffer.empty() && bytes.size() >= kDirectBytes) {
    int error = 0;
    const std::size_t n = pwrite_fully(output.fd.get(), bytes, output.length, error);
    output.length += n;
    bytes.remove_prefix(n);
  }
  output.buffer += bytes;
}

Status FileSink::write_out(const std::string& path, Output& output) {
  int error = 0;
  const std::size_t n = pwrite_fully(output.fd.get(), output.buffer, output.length, error);
  output.length += n;
  output.buffer.erase(0, n);
  if (error != 0) return fail_errno(error, "output " + path);
  return {};
}

Status FileSink::flush(MonoTime now) {
  emit_overdue_partials(now);
  Status result;
  for (auto& [path, output] : outputs_) {
    if (output.buffer.empty()) continue;
    if (auto ok = write_out(path, output); !ok) result = ok;
  }
  return result;
}

Checkpoint FileSink::checkpoint() {
  Checkpoint out;
  out.positions = take_positions();
  for (auto& [path, output] : outputs_) {
    if (!output.dirty) continue;
    output.dirty = false;
    out.outputs.push_back({path, output.length});
    out.files.emplace_back(::fcntl(output.fd.get(), F_DUPFD_CLOEXEC, 0));
  }
  return out;
}

bool FileSink::drained() const {
  return std::all_of(outputs_.begin(), outputs_.end(), [](const auto& entry) { return entry.second.buffer.empty(); });
}

}  // namespace fantail
