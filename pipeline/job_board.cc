#include "pipeline/job_board.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <utility>

#include "common/base/options.h"

namespace fantail::pipeline {
namespace {

/// A circle among the dependencies, as a sentence; nothing if there is none.
std::optional<std::string> circle_in(const std::vector<std::vector<std::uint32_t>>& after,
                                     const std::vector<TaskSpec>& specs) {
  enum class Mark : std::uint8_t { kNew, kOnTheWay, kDone };
  std::vector<Mark> marks(after.size(), Mark::kNew);
  std::vector<std::uint32_t> way;
  std::optional<std::string> found;
  const std::function<void(std::uint32_t)> visit = [&](std::uint32_t task) {
    if (found || marks[task] == Mark::kDone) return;
    way.push_back(task);
    if (marks[task] == Mark::kOnTheWay) {
      const auto begin = std::find(way.begin(), way.end(), task);
      std::string text;
      for (auto at = begin; at != way.end(); ++at) text += (text.empty() ? "'" : " after '") + specs[*at].name + "'";
      found = "tasks wait for each other: " + text;
      return;
    }
    marks[task] = Mark::kOnTheWay;
    for (const std::uint32_t before : after[task]) visit(before);
    marks[task] = Mark::kDone;
    way.pop_back();
  };
  for (std::uint32_t task = 0; task < after.size(); ++task) visit(task);
  return found;
}

}  // namespace

Result<JobBoard> JobBoard::open(std::vector<TaskSpec> tasks, std::uint64_t seed) {
  const auto bad = [](const std::string& why) { return fail(ErrorCode::kInvalid, why); };
  std::map<std::string, std::uint32_t, std::less<>> by_name;
  for (const TaskSpec& spec : tasks) {
    if (spec.name.empty()) return bad("a task has no name");
    if (!by_name.emplace(spec.name, static_cast<std::uint32_t>(by_name.size())).second) {
      return bad("task '" + printable(spec.name) + "' is there twice");
    }
  }
  std::vector<std::vector<std::uint32_t>> after(tasks.size());
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    for (const auto& name : tasks[i].after) {
      const auto found = by_name.find(name);
      if (found == by_name.end()) {
        return bad("task '" + printable(tasks[i].name) + "' is to begin after '" + printable(name) +
                   "', which is no task");
      }
      after[i].push_back(found->second);
    }
  }
  if (const auto circle = circle_in(after, tasks)) return bad(*circle);
  JobBoard board;
  board.random_.seed(seed);
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    Task task;
    task.spec = std::move(tasks[i]);
    task.after = std::move(after[i]);
    board.tasks_.push_back(std::move(task));
  }
  return board;
}

std::optional<std::uint32_t> JobBoard::find(std::string_view name) const {
  for (std::uint32_t i = 0; i < tasks_.size(); ++i) {
    if (tasks_[i].spec.name == name) return i;
  }
  return std::nullopt;
}

std::optional<JobId> JobBoard::parse(std::string_view text) const {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const auto task = find(text.substr(0, colon));
  std::uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data() + colon + 1, end, number);
  if (!task || error != std::errc{} || at != end || number == 0) return std::nullopt;
  return JobId{*task, number};
}

// ---- handing out

bool JobBoard::may_begin(const Task& task) const {
  return std::all_of(task.after.begin(), task.after.end(), [&](std::uint32_t before) {
    const Task& other = tasks_[before];
    return other.closed && other.acknowledged.size() == other.known;
  });
}

std::optional<JobId> JobBoard::due_suspect(MonoTime now) const {
  for (std::uint32_t i = 0; i < tasks_.size(); ++i) {
    const auto& suspects = tasks_[i].suspects;
    if (!suspects.empty() && suspects.begin()->first <= now) return JobId{i, suspects.begin()->second};
  }
  return std::nullopt;
}

void JobBoard::hand_out(std::uint64_t id, JobId job, std::vector<Assignment>& to) {
  Task& task = tasks_[job.task];
  unsigned attempt = 1;
  if (const auto troubled = task.troubled.find(job.number); troubled != task.troubled.end()) {
    attempt = ++troubled->second.attempts;
    troubled->second.again.reset();
    troubled->second.blamed = false;
  }
  task.out.emplace(job.number, id);
  workers_[id].held.insert(job);
  to.push_back({job, attempt});
}

void JobBoard::take_of(std::uint32_t index, std::uint64_t worker, std::size_t count, MonoTime now,
                       std::vector<Assignment>& to) {
  Task& task = tasks_[index];
  if (!may_begin(task)) return;
  while (to.size() < count) {
    const bool one_is_out = !task.out.empty() || !task.suspects.empty();
    if (task.spec.one_by_one && one_is_out) return;
    if (!task.retries.empty() && task.retries.begin()->first <= now) {
      const std::uint64_t number = task.retries.begin()->second;
      task.retries.erase(task.retries.begin());
      hand_out(worker, {index, number}, to);
      continue;
    }
    if (task.spec.one_by_one && !task.retries.empty()) return;  // nobody overtakes
    // Some may have been acknowledged without ever having been handed out by this run.
    task.next = task.acknowledged.next_missing(task.next);
    if (task.next > task.known) return;
    if (task.out.contains(task.next) || task.troubled.contains(task.next)) {
      ++task.next;
      continue;
    }
    hand_out(worker, {index, task.next++}, to);
  }
}

std::vector<JobBoard::Assignment> JobBoard::take(std::uint64_t id, std::size_t count, MonoTime now) {
  std::vector<Assignment> out;
  if (count == 0 || tasks_.empty()) return out;
  Worker& worker = workers_[id];
  if (worker.alone) return out;
  if (const auto suspect = due_suspect(now)) {
    if (worker.held.empty()) {
      Task& task = tasks_[suspect->task];
      task.suspects.erase(task.suspects.begin());
      worker.draining = false;
      worker.alone = true;
      hand_out(id, *suspect, out);
      return out;
    }
    // One at a time runs empty for it, the others go on.
    const bool another =
        std::any_of(workers_.begin(), workers_.end(), [](const auto& entry) { return entry.second.draining; });
    if (!another) worker.draining = true;
    if (worker.draining) return out;
  } else {
    worker.draining = false;
  }
  for (std::uint32_t i = 0; i < tasks_.size() && out.size() < count; ++i) {
    take_of((turn_ + i) % static_cast<std::uint32_t>(tasks_.size()), id, count, now, out);
  }
  turn_ = (turn_ + 1) % static_cast<std::uint32_t>(tasks_.size());
  return out;
}

bool JobBoard::has_jobs(MonoTime now) const {
  return std::any_of(tasks_.begin(), tasks_.end(), [&](const Task& task) {
    if (!task.suspects.empty() && task.suspects.begin()->first <= now) return true;
    const bool retry = !task.retries.empty() && task.retries.begin()->first <= now;
    return (retry || task.next <= task.known) && may_begin(task);
  });
}

// ---- what becomes of them

/// Out of the hands of a worker. False: it did not have it.
bool JobBoard::take_back(std::uint64_t id, JobId job) {
  const auto worker = workers_.find(id);
  if (worker == workers_.end() || worker->second.held.erase(job) == 0) return false;
  if (worker->second.held.empty()) worker->second.alone = false;
  return true;
}

JobBoard::Verdict JobBoard::try_again(JobId job, Trouble& trouble, bool given_up, MonoTime now) {
  Task& task = tasks_[job.task];
  if (given_up) {
    trouble.dead = true;
    ++task.dead;
    return Verdict::kDead;
  }
  Duration pause = task.spec.back_off;
  for (unsigned i = 1; i < trouble.attempts && pause < task.spec.longest_back_off; ++i) pause *= 2;
  pause = std::min(pause, task.spec.longest_back_off);
  // Those that failed together do not come back together.
  const double share = std::uniform_real_distribution<double>(0.5, 1)(random_);
  trouble.again = now + std::chrono::duration_cast<Duration>(pause * share);
  (trouble.suspect ? task.suspects : task.retries).emplace(*trouble.again, job.number);
  return Verdict::kRetry;
}

JobBoard::Verdict JobBoard::failed(std::uint64_t worker, JobId job, MonoTime now) {
  if (!take_back(worker, job)) return Verdict::kIgnored;
  Task& task = tasks_[job.task];
  if (task.out.erase(job.number) == 0) return Verdict::kIgnored;  // somebody's result has arrived
  Trouble& trouble = task.troubled[job.number];
  trouble.attempts = std::max(trouble.attempts, 1U);
  trouble.suspect = false;  // its worker has outlived it
  ++trouble.failures;
  return try_again(job, trouble, trouble.failures > task.spec.retries, now);
}

bool JobBoard::acknowledged(JobId job) {
  if (job.task >= tasks_.size()) return false;
  Task& task = tasks_[job.task];
  if (job.number == 0 || !task.acknowledged.insert(job.number)) return false;
  if (const auto out = task.out.find(job.number); out != task.out.end()) {
    const std::uint64_t worker = out->second;
    task.out.erase(out);
    take_back(worker, job);
  }
  const auto troubled = task.troubled.find(job.number);
  if (troubled == task.troubled.end()) return true;
  const Trouble& trouble = troubled->second;
  if (trouble.dead) --task.dead;
  if (trouble.again) (trouble.suspect ? task.suspects : task.retries).erase({*trouble.again, job.number});
  task.troubled.erase(troubled);
  return true;
}

std::vector<std::pair<JobId, JobBoard::Verdict>> JobBoard::lost(std::uint64_t id, MonoTime now) {
  std::vector<std::pair<JobId, Verdict>> out;
  const auto found = workers_.find(id);
  if (found == workers_.end()) return out;
  const Worker worker = std::move(found->second);
  workers_.erase(found);
  const bool alone = worker.held.size() == 1;
  for (const JobId job : worker.held) {
    Task& task = tasks_[job.task];
    if (task.out.erase(job.number) == 0) continue;
    Trouble& trouble = task.troubled[job.number];
    trouble.attempts = std::max(trouble.attempts, 1U);
    trouble.suspect = true;
    trouble.blamed = alone;
    if (alone) ++trouble.crashes;
    out.emplace_back(job, try_again(job, trouble, trouble.crashes >= task.spec.max_crashes, now));
  }
  return out;
}

JobBoard::Verdict JobBoard::hung(std::uint64_t worker, JobId job, MonoTime now) {
  if (!take_back(worker, job)) return Verdict::kIgnored;
  Task& task = tasks_[job.task];
  if (task.out.erase(job.number) == 0) return Verdict::kIgnored;
  Trouble& trouble = task.troubled[job.number];
  trouble.attempts = std::max(trouble.attempts, 1U);
  ++trouble.crashes;
  return try_again(job, trouble, trouble.crashes >= task.spec.max_crashes, now);
}

void JobBoard::returned(std::uint64_t worker, JobId job, MonoTime now) {
  if (!take_back(worker, job)) return;
  Task& task = tasks_[job.task];
  if (task.out.erase(job.number) == 0) return;
  Trouble& trouble = task.troubled[job.number];
  trouble.attempts = std::max(trouble.attempts, 1U);
  trouble.again = now;
  (trouble.suspect ? task.suspects : task.retries).emplace(now, job.number);
}

void JobBoard::released(std::uint64_t id, MonoTime again) {
  const auto found = workers_.find(id);
  if (found == workers_.end()) return;
  const std::set<JobId> held = found->second.held;
  for (const JobId job : held) returned(id, job, again);
  workers_.erase(id);
}

// ---- what a board of before knew

std::optional<JobBoard::Past> JobBoard::past(JobId job) const {
  const auto& troubled = tasks_.at(job.task).troubled;
  const auto found = troubled.find(job.number);
  if (found == troubled.end()) return std::nullopt;
  const Trouble& trouble = found->second;
  return Past{trouble.attempts, trouble.failures, trouble.crashes, trouble.suspect, trouble.dead};
}

void JobBoard::restore(JobId job, const Past& past, MonoTime now) {
  Task& task = tasks_.at(job.task);
  Trouble& trouble = task.troubled[job.number];
  trouble.attempts = past.attempts;
  trouble.failures = past.failures;
  trouble.crashes = past.crashes;
  trouble.suspect = past.suspect;
  trouble.dead = past.dead;
  if (past.dead) {
    ++task.dead;
    return;
  }
  trouble.again = now;
  (trouble.suspect ? task.suspects : task.retries).emplace(now, job.number);
}

void JobBoard::hold(std::uint64_t worker, JobId job) {
  Task& task = tasks_.at(job.task);
  const auto troubled = task.troubled.find(job.number);
  const bool known = troubled != task.troubled.end();
  if (known && troubled->second.dead) return;
  if (task.acknowledged.contains(job.number) || !task.out.emplace(job.number, worker).second) return;
  workers_[worker].held.insert(job);
  if (!known || !troubled->second.again) return;
  Trouble& trouble = troubled->second;
  (trouble.suspect ? task.suspects : task.retries).erase({*trouble.again, job.number});
  trouble.again.reset();
  if (std::exchange(trouble.blamed, false)) --trouble.crashes;
}

void JobBoard::forget_acknowledged(std::uint32_t index) {
  Task& task = tasks_.at(index);
  task.acknowledged = {};
  task.next = 1;
}

bool JobBoard::requeue(JobId job) {
  if (job.task >= tasks_.size()) return false;
  Task& task = tasks_[job.task];
  const auto troubled = task.troubled.find(job.number);
  if (troubled == task.troubled.end() || !troubled->second.dead) return false;
  --task.dead;
  Trouble& trouble = troubled->second;
  trouble.dead = false;
  trouble.failures = 0;
  trouble.crashes = 0;
  trouble.again = MonoTime{};
  (trouble.suspect ? task.suspects : task.retries).emplace(*trouble.again, job.number);
  return true;
}

// ---- where it stands

std::optional<MonoTime> JobBoard::due() const {
  std::optional<MonoTime> at;
  for (const Task& task : tasks_) {
    for (const auto* waiting : {&task.retries, &task.suspects}) {
      if (!waiting->empty()) at = std::min(at.value_or(waiting->begin()->first), waiting->begin()->first);
    }
  }
  return at;
}

/// A dead job is before it.
bool JobBoard::is_blocked(const Task& task) const {
  return std::any_of(task.after.begin(), task.after.end(),
                     [&](std::uint32_t before) { return tasks_[before].dead > 0 || is_blocked(tasks_[before]); });
}

bool JobBoard::finished() const {
  return std::all_of(tasks_.begin(), tasks_.end(), [&](const Task& task) {
    return (task.closed && task.acknowledged.size() + task.dead == task.known) || is_blocked(task);
  });
}

std::vector<std::uint32_t> JobBoard::blocked() const {
  std::vector<std::uint32_t> out;
  for (std::uint32_t i = 0; i < tasks_.size(); ++i) {
    if (is_blocked(tasks_[i])) out.push_back(i);
  }
  return out;
}

JobBoard::Progress JobBoard::progress_of(const Task& task) const {
  return {task.known, task.acknowledged.size(), task.dead, task.out.size(), task.retries.size() + task.suspects.size()};
}

JobBoard::Progress JobBoard::progress(std::uint32_t task) const { return progress_of(tasks_.at(task)); }

JobBoard::Progress JobBoard::progress() const {
  Progress sum;
  for (const Task& task : tasks_) {
    const Progress p = progress_of(task);
    sum.known += p.known;
    sum.acknowledged += p.acknowledged;
    sum.dead += p.dead;
    sum.handed_out += p.handed_out;
    sum.waiting += p.waiting;
  }
  return sum;
}

std::vector<JobId> JobBoard::dead() const {
  std::vector<JobId> out;
  for (std::uint32_t i = 0; i < tasks_.size(); ++i) {
    for (const auto& [number, trouble] : tasks_[i].troubled) {
      if (trouble.dead) out.push_back({i, number});
    }
  }
  return out;
}

}  // namespace fantail::pipeline
