#include "pipeline/result_printer.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>

#include "common/base/text.h"
#include "common/json/json.h"

namespace fantail::pipeline {
namespace {

constexpr std::size_t kWaiting = 256 * 1024;
constexpr std::size_t kPipePiece = 4096;  // PIPE_BUF: a pipe that poll() says is writable takes it at once

}  // namespace

namespace {

/// What a command printed, as shell_jobs() put it into its result: numbers, objects and the like stand there as they
/// were.
std::string printed_result(const std::string& line) {
  constexpr std::string_view kBefore = R"(,"result":)";
  const auto at = line.find(kBefore);  // within texts its quotes are escaped
  if (at == std::string::npos) return line;
  std::string raw = line.substr(at + kBefore.size(), line.size() - at - kBefore.size() - 1);
  if (raw.front() != '"' && !raw.starts_with(R"({"base64":)")) return raw;
  const auto value = parse_json(raw);
  if (!value) return raw;
  if (value->is_string()) return value->get<std::string>();
  auto bytes = value->size() == 1 ? from_base64(value->value("base64", "?")) : std::nullopt;
  return bytes ? std::move(*bytes) : raw;
}

}  // namespace

void ResultPrinter::given_up(JobId job, std::string line) {
  if (options_.keep_order) {
    dead_[job] = std::move(line);
  } else if (!line.empty()) {
    dead_as_they_come_.push_back(std::move(line));
  }
}

void ResultPrinter::put(const std::string& line) {
  if (options_.results_only) {
    waiting_ += printed_result(line);
  } else {
    waiting_ += line;
  }
  waiting_ += '\n';
}

/// The job that is printed next, in the order of the jobs; nothing: none that has ended, or not yet its turn.
std::optional<std::uint64_t> ResultPrinter::next_in_order(const CollectedRun& run, std::uint32_t task) const {
  const ResultJournal& journal = run.journal(task);
  const std::uint64_t from = task < next_.size() ? next_[task] : 1;
  if (journal.contains(from) || dead_.contains({task, from})) return from;
  if (!ending_) return std::nullopt;
  std::optional<std::uint64_t> least;
  for (std::uint64_t place = 0; place < journal.count(); ++place) {
    const std::uint64_t number = journal.number_at(place);
    if (number >= from && (!least || number < *least)) least = number;
  }
  const auto dead = dead_.lower_bound({task, from});
  if (dead != dead_.end() && dead->first.task == task && (!least || dead->first.number < *least)) {
    least = dead->first.number;
  }
  return least;
}

std::size_t ResultPrinter::fill(const CollectedRun& run) {
  next_.resize(run.tasks(), options_.keep_order ? 1 : 0);
  std::size_t done = 0;
  for (; !dead_as_they_come_.empty() && waiting_.size() < kWaiting; ++done) {
    waiting_ += dead_as_they_come_.front() + "\n";
    dead_as_they_come_.pop_front();
  }
  for (std::uint32_t task = 0; task < next_.size(); ++task) {
    const ResultJournal& journal = run.journal(task);
    for (; waiting_.size() < kWaiting; ++done) {
      std::uint64_t number = 0;
      if (options_.keep_order) {
        const auto next = next_in_order(run, task);
        if (!next) break;
        number = *next;
      } else {
        if (next_[task] >= journal.count()) break;
        number = journal.number_at(next_[task]);
      }
      const auto dead = options_.keep_order ? dead_.find({task, number}) : dead_.end();
      if (dead != dead_.end() && !journal.contains(number)) {
        if (!dead->second.empty()) waiting_ += dead->second + "\n";
        dead_.erase(dead);
      } else {
        const auto line = journal.line(number);
        if (!line) break;  // not written yet
        put(*line);
      }
      next_[task] = options_.keep_order ? number + 1 : next_[task] + 1;
    }
  }
  return done;
}

std::size_t ResultPrinter::write() {
  std::size_t done = 0;
  while (done < waiting_.size() && !broken_) {
    pollfd item{STDOUT_FILENO, POLLOUT, 0};
    if (::poll(&item, 1, 0) <= 0 || (item.revents & (POLLOUT | POLLERR | POLLHUP | POLLNVAL)) == 0) break;
    const ssize_t n = ::write(STDOUT_FILENO, waiting_.data() + done, std::min(kPipePiece, waiting_.size() - done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EAGAIN)) {
      const Error error = error_of_errno(errno, "cannot write to stdout");
      const auto count = errno == EAGAIN ? std::nullopt : full_log_.occurred(mono_now());
      if (count) log::error("results wait for room", {{"error", error}, {"count", *count}});
      break;
    }
    if (n <= 0) {
      broken_ = true;
      break;
    }
    done += static_cast<std::size_t>(n);
  }
  waiting_.erase(0, done);
  return done;
}

std::size_t ResultPrinter::turn(const CollectedRun& run) { return fill(run) + write(); }

bool ResultPrinter::complete(const CollectedRun& run) const {
  if (broken_) return true;
  if (!waiting_.empty() || !dead_as_they_come_.empty()) return false;
  for (std::uint32_t task = 0; task < run.tasks(); ++task) {
    const std::uint64_t printed = task < next_.size() ? next_[task] : 0;
    if (options_.keep_order ? next_in_order(run, task).has_value() : printed < run.journal(task).count()) return false;
  }
  return true;
}

}  // namespace fantail::pipeline
