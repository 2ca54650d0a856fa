#include "pipeline/task_options.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "common/base/text.h"
#include "common/json/json.h"
#include "pipeline/command_method.h"
#include "pipeline/generated_jobs.h"
#include "pipeline/line_source.h"
#include "pipeline/piped_lines.h"

namespace fantail::pipeline {
namespace {

constexpr std::size_t kMostJobFile = 64 * 1024 * 1024;
constexpr Duration kHardBehindSoft = 10s;

Result<std::unique_ptr<JobSource>> open_lines(const std::string& path, TaskOptions::Stdin how) {
  constexpr const char* kStdin = "standard input";
  if (path == "-" && how == TaskOptions::Stdin::kAsItComes) return PipedLines::open(STDIN_FILENO, kStdin);
  auto source = path == "-" ? LineSource::copy_of(STDIN_FILENO, kStdin) : LineSource::open(path);
  if (!source) return tl::unexpected(source.error());
  return std::make_unique<LineSource>(std::move(*source));
}

/// A job as its line: a string as it is, anything else as JSON.
std::string line_of(const Json& job) { return job.is_string() ? job.get<std::string>() : to_text(job); }

/// Of a value that is not what it should be.
std::string shown(const Json& value) {
  constexpr std::size_t kLongest = 100;
  const std::string text = to_text(value);
  return printable(utf8_prefix(text, kLongest)) + (text.size() > kLongest ? "..." : "");
}

// Members of a job file; each throws std::invalid_argument with a sentence. Numbers by the same rules as the flags.

Duration seconds_of(const std::string& key, const Json& value, double least) {
  constexpr double kTenYears = 10.0 * 366 * 86'400;
  const double seconds = value.is_number() ? value.get<double>() : -1;
  if (!(seconds >= least && seconds <= kTenYears)) {
    throw std::invalid_argument("'" + key + "' must be a number of seconds, at least " + Json(least).dump() +
                                " and at most ten years, not " + shown(value));
  }
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

unsigned count_of(const std::string& key, const Json& value, unsigned least) {
  constexpr unsigned kMost = 1000;
  const bool whole = value.is_number_integer() && value >= least && value <= kMost;
  if (!whole) {
    throw std::invalid_argument("'" + key + "' must be a whole number from " + std::to_string(least) + " to " +
                                std::to_string(kMost) + ", not " + shown(value));
  }
  return value.get<unsigned>();
}

std::string text_of(const std::string& key, const Json& value) {
  if (!value.is_string()) throw std::invalid_argument("'" + key + "' must be a text, not " + shown(value));
  return value;
}

std::vector<std::string> texts_of(const std::string& key, const Json& value) {
  if (value.is_string()) return {value.get<std::string>()};
  const bool good =
      value.is_array() && std::all_of(value.begin(), value.end(), [](const Json& one) { return one.is_string(); });
  if (!good) throw std::invalid_argument("'" + key + "' must be a text or an array of texts, not " + shown(value));
  return value.get<std::vector<std::string>>();
}

bool flag_of(const std::string& key, const Json& value) {
  if (!value.is_boolean()) throw std::invalid_argument("'" + key + "' must be true or false, not " + shown(value));
  return value;
}

}  // namespace

/// A --task with what speaks of it.
struct TaskOptions::Named {
  std::string text;
  std::vector<std::string> after;
  std::string lines;
};

void TaskOptions::describe(OptionSet& options) {
  options.group("Tasks");
  options.text("job", job_file, "FILE", "the tasks and their jobs, as JSON (README shows one)");
  options.list("lines", lines, "FILE",
               "each line is a job, - is stdin: of every task, or behind a --task of that one alone");
  options.list(
      "task", tasks, "NAME=CMD",
      "what to do with each job: CMD is run by sh -c, {} in it is the line, quoted; the line is on stdin, too");
  options.list("after", after, "NAME", "the --task before this begins when every job of NAME has its result");
  describe_attempts(options);
  options.in_order(given);
}

void TaskOptions::describe_attempts(OptionSet& options) {
  options.number("retries", retries, 0, 1000, "N", "try a job that failed so many times more");
  options.number("max-crashes", max_crashes, 1, 1000, "N", "give up a job that took its worker with it so often");
  options.seconds("timeout", timeout, "end an attempt after so long, it has failed then; 0: never");
  options.seconds("hard-timeout", hard_timeout,
                  "take a job away from a worker that has not ended it by then; 0: --timeout + 10, or never");
  options.seconds("back-off", back_off, "wait so long before the second attempt, doubled for each one after it", 1ms);
}

std::vector<TaskOptions::Named> TaskOptions::named() const {
  std::vector<Named> out;
  std::string for_all;
  for (const auto& [name, value] : given) {
    if (name == "task") out.push_back({value, {}, {}});
    if (name == "after" && !out.empty()) out.back().after.push_back(value);
    if (name == "lines") (out.empty() ? for_all : out.back().lines) = value;
  }
  for (auto& task : out) {
    if (task.lines.empty()) task.lines = for_all;
  }
  return out;
}

TaskSpec TaskOptions::spec_of(const std::string& name) const {
  TaskSpec spec;
  spec.name = name;
  spec.retries = retries;
  spec.max_crashes = max_crashes;
  spec.back_off = back_off;
  return spec;
}

Duration TaskOptions::hard_timeout_of(Duration soft) const {
  if (hard_timeout > Duration{}) return hard_timeout;
  return soft > Duration{} ? soft + kHardBehindSoft : Duration{};
}

std::vector<std::string> TaskOptions::problems() const {
  std::vector<std::string> out;
  if (!job_file.empty()) {
    if (!lines.empty() || !tasks.empty() || !after.empty()) {
      out.emplace_back("--job says all about the tasks: leave out --lines, --task and --after");
    }
    return out;
  }
  if (tasks.empty()) {
    out.emplace_back("what is to be done? Give it --task NAME=CMD and --lines FILE, or --job FILE");
    return out;
  }
  bool task_before = false;
  std::set<std::string> stdin_for;
  for (const auto& [name, value] : given) {
    if (name == "task") task_before = true;
    if (name == "after" && !task_before)
      out.push_back("--after '" + printable(value) + "': speaks of the --task before it, and there is none");
  }
  std::vector<TaskSpec> specs;
  for (const auto& task : named()) {
    const auto parsed = CommandMethod::parse("--task", task.text);
    if (!parsed) {
      out.push_back(parsed.error().context);
      continue;
    }
    if (const auto ok = check_task_name(parsed->name); !ok) out.push_back(ok.error().context);
    if (task.lines.empty()) {
      out.push_back("--task " + printable(parsed->name) + ": has no jobs; give --lines FILE before it, or behind it");
    }
    if (task.lines == "-") stdin_for.insert(parsed->name);
    specs.push_back(spec_of(parsed->name));
    specs.back().after = task.after;
  }
  if (stdin_for.size() > 1) out.emplace_back("--lines -: standard input can be the jobs of one task only; use a file");
  if (out.empty()) {
    if (const auto board = JobBoard::open(specs, 0); !board) out.push_back(board.error().context);
  }
  if (hard_timeout > Duration{} && hard_timeout < timeout) {
    out.emplace_back("--hard-timeout: must be longer than --timeout, or commands are never ended in peace");
  }
  return out;
}

Result<std::vector<Task>> TaskOptions::open(Stdin how) const {
  if (!job_file.empty()) return open_job_file(how);
  std::vector<Task> out;
  for (const auto& one : named()) {
    const auto parsed = CommandMethod::parse("--task", one.text);
    if (!parsed) return tl::unexpected(parsed.error());
    Task task;
    task.spec = spec_of(parsed->name);
    task.spec.after = one.after;
    task.command = parsed->command;
    task.timeout = timeout;
    task.hard_timeout = hard_timeout_of(timeout);
    auto jobs = open_lines(one.lines, how);
    if (!jobs) return fail(ErrorCode::kInvalid, "--lines " + printable(one.lines) + ": " + jobs.error().context);
    task.jobs = std::move(*jobs);
    out.push_back(std::move(task));
  }
  return out;
}

Result<std::vector<Task>> TaskOptions::open_job_file(Stdin how) const {
  const auto bad = [&](const std::string& why) { return fail(ErrorCode::kInvalid, "--job " + job_file + ": " + why); };
  std::ifstream in(job_file, std::ios::binary);
  const int error = errno;
  std::ostringstream text;
  if (std::filesystem::is_directory(job_file)) return bad("is a directory");
  if (!in) return bad("cannot be read: " + std::generic_category().message(error));
  if (in.peek() == std::ifstream::traits_type::eof()) return bad(R"(is empty; it must be {"tasks": [...]})");
  text << in.rdbuf();
  if (text.view().size() > kMostJobFile) return bad("is larger than 64 MiB; put the jobs into a file of lines");
  const auto value = parse_json(text.view());
  if (!value) return bad(value.error().context);
  if (const auto twice = repeated_member(text.view()))
    return bad("'" + printable(*twice) + "' is there twice in one object");
  if (!value->is_object() || !value->contains("tasks") || !(*value)["tasks"].is_array()) {
    return bad(R"(must be {"tasks": [{"name": ..., "command": ..., "lines": FILE or "jobs": [...]}, ...]})");
  }
  for (const auto& [key, member] : value->items()) {
    if (key != "tasks") return bad("unknown member '" + printable(key) + "' beside 'tasks'");
  }
  std::vector<Task> out;
  bool stdin_taken = false;
  for (const Json& one : (*value)["tasks"]) {
    const std::string where = "task " + std::to_string(out.size() + 1) + ": ";
    Task task;
    try {
      if (!one.is_object()) return bad(where + "is no object");
      std::string lines_file;
      std::optional<std::vector<std::string>> jobs;
      task.spec = spec_of("");
      task.timeout = timeout;
      std::optional<Duration> hard;
      for (const auto& [key, member] : one.items()) {
        if (key == "name") {
          task.spec.name = text_of(key, member);
        } else if (key == "command") {
          task.command = text_of(key, member);
        } else if (key == "after") {
          task.spec.after = texts_of(key, member);
        } else if (key == "lines") {
          lines_file = text_of(key, member);
        } else if (key == "jobs") {
          if (!member.is_array()) return bad(where + "'jobs' must be an array, not " + shown(member));
          jobs.emplace();
          for (const Json& job : member) jobs->push_back(line_of(job));
        } else if (key == "retries") {
          task.spec.retries = count_of(key, member, 0);
        } else if (key == "max_crashes") {
          task.spec.max_crashes = count_of(key, member, 1);
        } else if (key == "one_by_one") {
          task.spec.one_by_one = flag_of(key, member);
        } else if (key == "back_off") {
          task.spec.back_off = seconds_of(key, member, 0.001);
        } else if (key == "timeout") {
          task.timeout = seconds_of(key, member, 0);
        } else if (key == "hard_timeout") {
          hard = seconds_of(key, member, 0);
        } else {
          return bad(where + "unknown member '" + printable(key) +
                     "'; there are name, command, lines, jobs, after, retries, max_crashes, one_by_one, back_off, "
                     "timeout and hard_timeout");
        }
      }
      if (const auto ok = check_task_name(task.spec.name); !ok) return bad(where + ok.error().context);
      if (lines_file.empty() == !jobs) return bad(where + "must have either 'lines' or 'jobs'");
      if (hard && *hard > Duration{} && *hard < task.timeout) {
        return bad(where + "'hard_timeout' must be longer than 'timeout'");
      }
      if (lines_file == "-" && std::exchange(stdin_taken, true)) {
        return bad(where + "'lines' -: standard input can be the jobs of one task only");
      }
      task.hard_timeout = hard.value_or(hard_timeout_of(task.timeout));
      if (jobs) {
        auto source = GeneratedJobs::make(*jobs);
        if (!source) return tl::unexpected(source.error());
        task.jobs = std::move(*source);
      } else {
        const auto path = std::filesystem::path(job_file).parent_path() / lines_file;
        auto source = open_lines(lines_file == "-" ? "-" : path.string(), how);
        if (!source) return bad(where + source.error().context);
        task.jobs = std::move(*source);
      }
    } catch (const std::invalid_argument& e) {  // a member of another type, or out of its range
      return bad(where + e.what());
    }
    out.push_back(std::move(task));
  }
  std::vector<TaskSpec> specs;
  for (const Task& task : out) specs.push_back(task.spec);
  if (const auto board = JobBoard::open(specs, 0); !board) return bad(board.error().context);
  return out;
}

}  // namespace fantail::pipeline
