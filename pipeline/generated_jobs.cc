#include "pipeline/generated_jobs.h"

#include "common/base/digest.h"

namespace fantail::pipeline {
namespace {

constexpr std::size_t kAtATime = 4096;
constexpr std::size_t kBytesAtATime = 4 * 1024 * 1024;

}  // namespace

Result<std::unique_ptr<GeneratedJobs>> GeneratedJobs::make(std::string name, Next next,
                                                           std::function<bool()> complete) {
  auto file = AppendFile::temporary();
  if (!file) return tl::unexpected(file.error());
  return std::unique_ptr<GeneratedJobs>(
      new GeneratedJobs(std::move(*file), std::move(name), std::move(next), std::move(complete)));
}

Result<std::unique_ptr<GeneratedJobs>> GeneratedJobs::make(const std::vector<std::string>& jobs) {
  std::string all;
  for (const auto& job : jobs) all += std::to_string(job.size()) + ":" + job;
  std::string name = std::to_string(jobs.size()) + "-" + std::to_string(digest({as_bytes(all)}));
  auto given = std::make_shared<std::vector<std::string>>(jobs);
  return make(
      std::move(name),
      [given](std::uint64_t number) {
        return number <= given->size() ? std::optional((*given)[number - 1]) : std::nullopt;
      },
      [] { return true; });
}

Result<std::uint64_t> GeneratedJobs::look_on() {
  std::string bytes;
  const std::size_t before = ends_.size();
  while (!complete_ && ends_.size() - before < kAtATime && bytes.size() < kBytesAtATime) {
    const auto job = next_(ends_.size());
    if (!job) {
      complete_ = is_complete_();
      break;
    }
    if (job->size() > kMaxJobBytes) {
      return fail(ErrorCode::kInvalid, "job " + std::to_string(ends_.size()) + " is larger than 1 MiB");
    }
    bytes += *job;
    ends_.push_back(file_.length() + bytes.size());
  }
  if (auto ok = file_.append(bytes); !ok) {
    ends_.resize(before);
    complete_ = false;
    return tl::unexpected(ok.error());
  }
  return ends_.size() - before;
}

Result<std::string> GeneratedJobs::job(std::uint64_t number) {
  if (number == 0 || number >= ends_.size()) {
    return fail(ErrorCode::kInvalid, "there is no job " + std::to_string(number));
  }
  std::string out(ends_[number] - ends_[number - 1], '\0');
  const auto n = file_.read_at(ends_[number - 1], std::as_writable_bytes(std::span(out.data(), out.size())));
  if (!n) return tl::unexpected(n.error());
  if (*n != out.size()) return fail(ErrorCode::kIo, "the file of the jobs became shorter");
  return out;
}

}  // namespace fantail::pipeline
