#include "pipeline/result_output.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/json/json.h"
#include "common/storage/append_file.h"
#include "common/storage/small_file.h"

namespace fantail::pipeline {
namespace {

constexpr std::size_t kPiece = 256 * 1024;
constexpr std::size_t kPipePiece = 4096;  // PIPE_BUF: a pipe that poll() says is writable takes it at once
constexpr Duration kAgain = 100ms;
constexpr const char* kPlaceFile = "output";  // which file, and from where on it has results of this run

}  // namespace

Result<ResultOutput> ResultOutput::open(const std::string& target, CollectedRun& run) {
  if (target == "-") return ResultOutput(target, UniqueFd(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)), run);
  UniqueFd fd(::open(target.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0640));
  if (!fd) return fail_errno(errno, "--output " + target);
  ResultOutput output(target, std::move(fd), run);
  if (auto ok = output.find_place(); !ok) return tl::unexpected(ok.error());
  return output;
}

Status ResultOutput::check(const std::string& target) {
  if (target == "-") return {};
  const UniqueFd fd(::open(target.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0640));
  if (fd) return {};
  return fail(ErrorCode::kInvalid, error_of_errno(errno, "--output '" + target + "': cannot be opened").context +
                                       "; name a file that can be written");
}

Status ResultOutput::find_place() {
  struct stat status {};
  if (::fstat(fd_.get(), &status) != 0) return fail_errno(errno, "--output " + target_);
  if (!S_ISREG(status.st_mode)) return {};
  const auto place_file = run_.directory() / kPlaceFile;
  const auto known = read_small_file(place_file);
  const auto place = known ? parse_json(*known) : Result<Json>(Json::object());
  const std::uint64_t inode = status.st_ino;
  const bool ours = place && place->is_object() && place->value("inode", std::uint64_t{0}) == inode &&
                    place->value("from", std::uint64_t{0}) <= static_cast<std::uint64_t>(status.st_size);
  if (!ours) {
    char last = '\n';
    if (status.st_size > 0 && ::pread(fd_.get(), &last, 1, status.st_size - 1) == 1 && last != '\n') {
      if (::write(fd_.get(), "\n", 1) != 1) return fail_errno(errno, "--output " + target_);
      ++status.st_size;
    }
    return replace_small_file(place_file, to_text({{"inode", inode}, {"from", status.st_size}}));
  }
  const std::uint64_t from = place->value("from", std::uint64_t{0});
  const auto file = AppendFile::open(target_);
  if (!file) return tl::unexpected(file.error());
  const auto upto = file->for_each_line([&](std::string_view line, std::uint64_t offset) {
    if (offset < from) return true;
    const std::string_view id = line.substr(std::min<std::size_t>(line.size(), std::strlen(R"({"id":")")));
    if (const auto at = run_.find(id.substr(0, id.find('"')))) found(at->task, at->number);
    return true;
  });
  if (!upto) return tl::unexpected(upto.error());
  if (*upto < file->length() && ::ftruncate(fd_.get(), static_cast<off_t>(*upto)) != 0) {
    return fail_errno(errno, "--output " + target_);
  }
  return {};
}

/// The file has this result.
void ResultOutput::found(std::size_t task, std::uint64_t number) {
  const ResultJournal& journal = run_.journal(task);
  Copied& copied = copied_[task];
  const bool next = copied.place < journal.count() && journal.number_at(copied.place) == number;
  if (next && copied.elsewhere.size() == 0) {
    copied.bytes = journal.end_of(copied.place++);
  } else {
    copied.elsewhere.insert(number);
  }
}

/// How far the journal can be copied at once: to its end, or to a result that the file has elsewhere. Goes past those
/// that are next.
std::uint64_t ResultOutput::upto(std::size_t task) {
  const ResultJournal& journal = run_.journal(task);
  Copied& copied = copied_[task];
  const std::uint64_t end = journal.end().raw;
  if (copied.elsewhere.size() == 0) return end;
  const auto written = [&](std::uint64_t place) { return place < journal.count() && journal.end_of(place) <= end; };
  while (written(copied.place) && journal.end_of(copied.place) <= copied.bytes) ++copied.place;
  while (written(copied.place) && copied.elsewhere.contains(journal.number_at(copied.place))) {
    copied.bytes = journal.end_of(copied.place++);
  }
  std::uint64_t at = copied.bytes;
  for (std::uint64_t place = copied.place; written(place) && at - copied.bytes < kPiece; ++place) {
    if (copied.elsewhere.contains(journal.number_at(place))) break;
    at = journal.end_of(place);
  }
  return at;
}

bool ResultOutput::complete() {
  for (std::size_t i = 0; i < copied_.size(); ++i) {
    if (copied_[i].bytes < upto(i)) return false;
  }
  return true;
}

std::size_t ResultOutput::turn(MonoTime now) {
  if (now < again_) return 0;
  std::size_t done = 0;
  const bool to_pipe = target_ == "-";
  std::string piece;
  for (std::size_t i = 0; i < copied_.size(); ++i) {
    if (in_line_ != SIZE_MAX && in_line_ != i) continue;  // lines stay whole
    ResultJournal& journal = run_.journal(i);
    std::uint64_t& copied = copied_[i].bytes;
    for (std::uint64_t end = upto(i); copied < end && done < kPiece; end = upto(i)) {
      pollfd item{fd_.get(), POLLOUT, 0};
      if (to_pipe && (::poll(&item, 1, 0) <= 0 || (item.revents & POLLOUT) == 0)) {
        again_ = now + 10ms;
        if ((item.revents & (POLLERR | POLLHUP)) == 0) return done;
      }
      piece.resize(std::min<std::uint64_t>(to_pipe ? kPipePiece : kPiece, end - copied));
      const auto got = journal.read_at({copied}, std::as_writable_bytes(std::span(piece.data(), piece.size())));
      ssize_t n = -1;
      if (got) {
        n = ::write(fd_.get(), piece.data(), *got);
        if (n < 0 && errno == EINTR) continue;
      }
      if (n <= 0) {
        again_ = now + kAgain;
        const Error error = got ? error_of_errno(errno, "cannot write --output " + target_) : got.error();
        if (const auto count = problem_log_.occurred(now)) {
          log::error("results wait for their output", {{"error", error}, {"count", *count}});
        }
        return done;
      }
      copied += static_cast<std::uint64_t>(n);
      done += static_cast<std::size_t>(n);
      in_line_ = piece[static_cast<std::size_t>(n) - 1] == '\n' ? SIZE_MAX : i;
    }
    if (in_line_ == i && copied == journal.end().raw) in_line_ = SIZE_MAX;
  }
  return done;
}

}  // namespace fantail::pipeline
