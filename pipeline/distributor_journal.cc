#include "pipeline/distributor_journal.h"

#include "common/base/log.h"
#include "common/json/json.h"
#include "pipeline/result_journal.h"

namespace fantail::pipeline {
namespace {

constexpr const char* kFile = "distributor.jsonl";

Json id_of(JobId job) { return Json::array({job.task, job.number}); }
JobId job_of(const Json& value) { return {value.at(0).get<std::uint32_t>(), value.at(1).get<std::uint64_t>()}; }

std::string line_of(const Json& value) { return to_text(value) + "\n"; }

}  // namespace

Result<DistributorJournal> DistributorJournal::open(const StateDirectory& directory, const std::string& run,
                                                    const std::string& tasks, bool anew) {
  if (!anew) {
    auto found = open(directory);
    if (found && found->tasks_ == tasks) return found;
    if (found) {
      return fail(ErrorCode::kBusy, "state directory " + directory.path().string() +
                                        ": holds a run of other tasks or other jobs; finish that, give this one "
                                        "another --state-dir, or remove what is there with --no-resume");
    }
    if (found.error().code != ErrorCode::kNotFound) return found;
  }
  auto file = AppendFile::create(directory.path() / kFile);
  if (!file) return tl::unexpected(file.error());
  DistributorJournal journal(std::move(*file));
  journal.run_ = run;
  journal.tasks_ = tasks;
  if (auto ok = journal.file_.append(line_of({{"run", run}, {"tasks", tasks}})); !ok) return tl::unexpected(ok.error());
  return journal;
}

Result<DistributorJournal> DistributorJournal::open(const StateDirectory& directory) {
  auto file = AppendFile::open(directory.path() / kFile);
  if (!file) return tl::unexpected(file.error());
  DistributorJournal journal(std::move(*file));
  if (auto ok = journal.replay(); !ok) return tl::unexpected(ok.error());
  return journal;
}

bool DistributorJournal::exists_in(const std::filesystem::path& directory) {
  std::error_code ec;
  return std::filesystem::exists(directory / kFile, ec);
}

/// What is behind the last good line was not acted upon: it is cut off.
Status DistributorJournal::replay() {
  Status bad;
  const auto upto = file_.for_each_line([&](std::string_view line, std::uint64_t offset) {
    bad = apply(line, offset);
    return bad.has_value();
  });
  if (!upto) return tl::unexpected(upto.error());
  if (!bad) {
    return fail(ErrorCode::kCorrupt, file_.path().string() + ", byte " + std::to_string(*upto) + ": damaged (" +
                                         bad.error().context + "); remove it to begin the run anew");
  }
  if (run_.empty()) {
    if (*upto == 0) return fail(ErrorCode::kNotFound, file_.path().string() + ": begun, and nothing in it");
    return fail(ErrorCode::kCorrupt, file_.path().string() + ": is no journal of a distributor");
  }
  return *upto == file_.length() ? Status{} : file_.cut_to(*upto);
}

Status DistributorJournal::apply(std::string_view line, std::uint64_t offset) {
  const auto value = parse_json(line);
  if (!value) return tl::unexpected(value.error());
  try {
    if (const auto run = value->find("run"); run != value->end()) {
      run_ = *run;
      tasks_ = value->at("tasks");
    } else if (const auto out = value->find("out"); out != value->end()) {
      for (const Json& job : *out) past_.out[job_of(job)] = value->at("worker");
    } else if (const auto trouble = value->find("trouble"); trouble != value->end()) {
      const JobId job = job_of(*trouble);
      past_.out.erase(job);
      past_.troubled[job] = {trouble->at(2), trouble->at(3), trouble->at(4), trouble->at(5), trouble->at(6)};
    } else if (const auto dead = value->find("dead"); dead != value->end()) {
      dead_[job_of(*dead)] = offset;
    } else if (const auto again = value->find("requeued"); again != value->end()) {
      dead_.erase(job_of(*again));
      past_.completed = false;
    } else if (const auto purged = value->find("purged"); purged != value->end()) {
      dead_.erase(job_of(*purged));
    } else if (const auto metadata = value->find("metadata"); metadata != value->end()) {
      past_.metadata = to_text(*metadata);
    } else if (value->contains("completed")) {
      past_.completed = true;
    }
    return {};
  } catch (const Json::exception& e) {
    return fail(ErrorCode::kCorrupt, e.what());
  }
}

Status DistributorJournal::handed_out(std::string_view worker, const std::vector<JobBoard::Assignment>& jobs) {
  std::string line = R"({"out":[)";
  for (const auto& [job, attempt] : jobs) {
    if (line.back() != '[') line += ',';
    line += '[' + std::to_string(job.task) + ',' + std::to_string(job.number) + ']';
  }
  line += R"(],"worker":)" + json_string(worker) + "}\n";
  return file_.append(line);
}

void DistributorJournal::troubled(JobId job, const JobBoard::Past& past) {
  pending_ += line_of(
      {{"trouble", {job.task, job.number, past.attempts, past.failures, past.crashes, past.suspect, past.dead}}});
}

void DistributorJournal::given_up(JobId job, const std::string& json) {
  dead_[job] = file_.length() + pending_.size();
  pending_ += R"({"dead":)" + to_text(id_of(job)) + R"(,"letter":)" + json + "}\n";
}

void DistributorJournal::requeued(JobId job) {
  dead_.erase(job);
  pending_ += line_of({{"requeued", id_of(job)}});
}

void DistributorJournal::purged(JobId job) {
  dead_.erase(job);
  pending_ += line_of({{"purged", id_of(job)}});
}

void DistributorJournal::metadata(const std::string& json) { pending_ += R"({"metadata":)" + json + "}\n"; }

void DistributorJournal::completed() { pending_ += line_of({{"completed", true}}); }

Status DistributorJournal::write() {
  if (pending_.empty()) return {};
  if (auto ok = file_.append(pending_); !ok) return ok;
  pending_.clear();
  return {};
}

std::optional<JobId> DistributorJournal::parse(std::string_view id) const {
  const auto tasks = parse_json(tasks_);
  if (!tasks || !tasks->is_array()) return std::nullopt;
  for (std::uint32_t i = 0; i < tasks->size(); ++i) {
    const auto& task = (*tasks)[i];
    if (!task.is_object()) continue;
    if (const auto number = number_of(id, task.value("name", ""))) return JobId{i, *number};
  }
  return std::nullopt;
}

std::vector<JobId> DistributorJournal::dead() const {
  std::vector<JobId> out;
  for (const auto& [job, offset] : dead_) out.push_back(job);
  return out;
}

Result<std::string> DistributorJournal::dead_letter(JobId job) const {
  const auto found = dead_.find(job);
  if (found == dead_.end()) return fail(ErrorCode::kNotFound, "this job was not given up");
  std::string line;
  if (found->second >= file_.length()) {  // not written yet
    const std::size_t from = found->second - file_.length();
    line = pending_.substr(from, pending_.find('\n', from) - from);
  } else {
    line.resize(64 * 1024);
    const auto n = file_.read_at(found->second, std::as_writable_bytes(std::span(line.data(), line.size())));
    if (!n) return tl::unexpected(n.error());
    line.resize(std::min(line.find('\n'), *n));
  }
  const auto value = parse_json(line);
  if (!value || !value->contains("letter")) {
    return fail(ErrorCode::kCorrupt, file_.path().string() + ": the line of a dead letter is damaged");
  }
  return to_text((*value)["letter"]);
}

}  // namespace fantail::pipeline
