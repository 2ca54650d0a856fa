#include "pipeline/collected_run.h"

#include <algorithm>

#include "common/json/json.h"
#include "common/storage/small_file.h"
#include "pipeline/task.h"

namespace fantail::pipeline {
namespace {

constexpr const char* kTasksFile = "tasks";  // their names, one a line
constexpr const char* kFinishedFile = "finished";
constexpr const char* kSettledFile = "settled";

}  // namespace

Result<std::unique_ptr<CollectedRun>> CollectedRun::begin(const std::filesystem::path& directory,
                                                          const std::vector<std::string>& tasks,
                                                          std::uint64_t& sequence) {
  std::error_code ec;
  std::filesystem::create_directories(directory, ec);
  if (ec) return fail_errno(ec.value(), "cannot make " + directory.string());
  auto names = AppendFile::create(directory / kTasksFile);
  if (!names) return tl::unexpected(names.error());
  std::string text;
  for (const auto& task : tasks) text += task + "\n";
  if (auto ok = names->append(text); !ok) return tl::unexpected(ok.error());
  std::unique_ptr<CollectedRun> run(new CollectedRun(directory));
  if (auto ok = run->open_journals(tasks, sequence); !ok) return tl::unexpected(ok.error());
  return run;
}

Result<std::unique_ptr<CollectedRun>> CollectedRun::open(const std::filesystem::path& directory,
                                                         std::uint64_t& sequence) {
  const auto names = AppendFile::open(directory / kTasksFile);
  if (!names) return tl::unexpected(names.error());
  std::vector<std::string> tasks;
  const auto upto = names->for_each_line([&](std::string_view line, std::uint64_t) {
    tasks.emplace_back(line);
    return true;
  });
  if (!upto) return tl::unexpected(upto.error());
  if (tasks.empty()) return fail(ErrorCode::kNotFound, directory.string() + ": is no run");
  for (const auto& task : tasks) {
    if (auto ok = check_task_name(task); !ok) {
      return fail(ErrorCode::kCorrupt, (directory / kTasksFile).string() + ": " + ok.error().context);
    }
  }
  std::unique_ptr<CollectedRun> run(new CollectedRun(directory));
  if (auto ok = run->open_journals(tasks, sequence); !ok) return tl::unexpected(ok.error());
  if (const auto at = read_small_file(directory / kFinishedFile)) {
    const auto value = parse_json(*at);
    run->finished_ = WallTime{value && value->is_number_integer() ? value->get<std::int64_t>() : 0};
    run->settled_ = std::filesystem::exists(directory / kSettledFile);
  }
  return run;
}

Status CollectedRun::open_journals(const std::vector<std::string>& tasks, std::uint64_t& sequence) {
  for (const auto& task : tasks) {
    auto journal = ResultJournal::open(directory_, task, sequence + 1);
    if (!journal) return tl::unexpected(journal.error());
    sequence = std::max(sequence, journal->sequence());
    journals_.push_back(std::move(*journal));
  }
  return {};
}

std::optional<CollectedRun::Place> CollectedRun::find(std::string_view id) const {
  for (std::size_t i = 0; i < journals_.size(); ++i) {
    if (const auto number = number_of(id, journals_[i].task())) return Place{i, *number};
  }
  return std::nullopt;
}

std::uint64_t CollectedRun::count() const {
  std::uint64_t sum = 0;
  for (const auto& journal : journals_) sum += journal.count();
  return sum;
}

Status CollectedRun::finish(WallTime now) {
  if (finished_) return {};
  for (const auto& journal : journals_) {
    if (auto ok = journal.sync(); !ok) return ok;
  }
  if (auto ok = replace_small_file(directory_ / kFinishedFile, std::to_string(now.ns)); !ok) return ok;
  finished_ = now;
  return {};
}

Status CollectedRun::reopen(std::uint64_t& sequence) {
  std::error_code ec;
  std::filesystem::remove(directory_ / kSettledFile, ec);
  if (!ec) std::filesystem::remove(directory_ / kFinishedFile, ec);
  if (ec) return fail_errno(ec.value(), "cannot go on with " + directory_.string());
  settled_ = false;
  finished_.reset();
  for (auto& journal : journals_) {
    if (auto ok = journal.begin_stream(sequence + 1); !ok) return ok;
    ++sequence;
  }
  return {};
}

Status CollectedRun::settle() {
  if (settled_) return {};
  if (auto ok = replace_small_file(directory_ / kSettledFile, "\n"); !ok) return ok;
  settled_ = true;
  return {};
}

}  // namespace fantail::pipeline
