#include "pipeline/piped_lines.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/base/types.h"
#include "common/transport/waiter.h"

namespace fantail::pipeline {
namespace {

constexpr std::size_t kPiece = 256 * 1024;
constexpr std::uint64_t kReadAhead = 4 * 1024 * 1024;
constexpr std::size_t kLineCosts = 32;  // beside its bytes, so that empty ones count, too

}  // namespace

Result<std::unique_ptr<PipedLines>> PipedLines::open(int fd, std::string name) {
  std::unique_ptr<PipedLines> out(new PipedLines(fd, std::move(name)));
  auto jobs = GeneratedJobs::make(
      "pipe " + to_string(random_id<InstanceId>()),
      [p = out.get()](std::uint64_t number) {
        const std::uint64_t place = number - 1 - p->kept_;
        return place < p->lines_.size() ? std::optional(p->lines_[place]) : std::nullopt;
      },
      [p = out.get()] { return p->ended_; });
  if (!jobs) return tl::unexpected(jobs.error());
  out->jobs_ = std::move(*jobs);
  return out;
}

bool PipedLines::full() const { return ahead_bytes_ >= kReadAhead; }

Result<std::uint64_t> PipedLines::look_on() {
  if (lines_.empty() && !ended_ && !full()) {
    if (auto ok = read_on(); !ok) return tl::unexpected(ok.error());
  }
  const auto more = jobs_->look_on();
  if (!more) return more;  // there was no room for them: they are here still
  kept_ += *more;
  lines_.erase(lines_.begin(), lines_.begin() + static_cast<std::ptrdiff_t>(*more));
  return more;
}

Status PipedLines::read_on() {
  pollfd item{fd_, POLLIN, 0};
  if (::poll(&item, 1, 0) <= 0) return {};
  std::string buffer(kPiece, '\0');
  const ssize_t n = ::read(fd_, buffer.data(), buffer.size());
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return {};
  if (n < 0) return fail_errno(errno, "cannot read " + name_);
  if (n > 0) {
    take({buffer.data(), static_cast<std::size_t>(n)});
    return {};
  }
  ended_ = true;
  if (in_line_) end_line();  // the last one needs no end
  return {};
}

void PipedLines::take(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto end = bytes.find('\n');
    const std::string_view piece = bytes.substr(0, end);
    // One byte more than allowed shows that it was longer.
    line_.append(piece.substr(0, kMaxJobBytes + 1 - line_.size()));
    in_line_ = true;
    if (end == std::string_view::npos) return;
    end_line();
    bytes.remove_prefix(end + 1);
  }
}

void PipedLines::end_line() {
  ++count_;
  if (line_.size() > kMaxJobBytes) {
    too_long_.insert(count_);
    line_.clear();
  }
  ahead_.push_back(static_cast<std::uint32_t>(line_.size() + kLineCosts));
  ahead_bytes_ += ahead_.back();
  lines_.push_back(std::exchange(line_, {}));
  in_line_ = false;
}

Result<std::string> PipedLines::job(std::uint64_t number) {
  for (std::uint64_t asked = count_ - ahead_.size(); asked < number && !ahead_.empty(); ++asked) {
    ahead_bytes_ -= ahead_.front();
    ahead_.pop_front();
  }
  if (too_long_.contains(number)) {
    return fail(ErrorCode::kInvalid, name_ + ": line " + std::to_string(number) + " is longer than 1 MiB");
  }
  return jobs_->job(number);
}

void PipedLines::add_to(Waiter& waiter) const {
  if (!ended_ && !full()) waiter.add_descriptor(fd_);
}

}  // namespace fantail::pipeline
