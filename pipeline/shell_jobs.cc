#include "pipeline/shell_jobs.h"

#include <string.h>

#include <algorithm>

#include "common/base/options.h"
#include "common/base/text.h"
#include "common/json/json.h"
#include "pipeline/shell_command.h"

namespace fantail::pipeline {
namespace {

constexpr std::size_t kMostMetadata = 64 * 1024;
constexpr int kExitTooLarge = 1;
constexpr int kExitStopped = -15;

/// What a command printed as JSON.
std::string as_json(std::string output) {
  if (!output.empty() && output.back() == '\n') output.pop_back();
  const bool one_line = output.find('\n') == std::string::npos;
  if (const auto value = one_line ? parse_json(output) : Result<Json>(Json("")); value && !value->is_string()) {
    return output;
  }
  if (is_utf8(output)) return json_string(output);
  std::string out = R"({"base64":")";
  append_base64(out, output);
  return out + "\"}";
}

std::string last_line_of(std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  const auto begin = text.rfind('\n');
  return std::string(begin == std::string_view::npos ? text : text.substr(begin + 1));
}

}  // namespace

std::string shell_quoted(std::string_view text) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("@%+=:,./-_").find(c) != std::string_view::npos;
  };
  if (!text.empty() && std::all_of(text.begin(), text.end(), plain)) return std::string(text);
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}

std::string with_line(std::string_view command, std::string_view line) {
  std::string out;
  std::string quoted;
  for (auto at = command.find("{}"); at != std::string_view::npos; at = command.find("{}")) {
    if (quoted.empty()) quoted = shell_quoted(line);
    out += command.substr(0, at);
    out += quoted;
    command.remove_prefix(at + 2);
  }
  return out += command;
}

JobWorker::Execute shell_jobs(const CommandKeeper& keeper) {
  return [&keeper](const Job& job) -> JobOutcome {
    if (job.task->command.empty()) {
      return {.exit = 1,
              .result = "null",
              .error = "task '" + job.task->name + "' has no command: it is for workers of a program of its own"};
    }
    if (job.data.find('\0') != std::string::npos) {
      return {.exit = 1, .result = "null", .error = "the job has a zero byte, no command can be given that"};
    }
    ShellCommand command;
    command.text = with_line(job.task->command, job.data);
    command.input = job.data + "\n";
    command.environment = {
        {"FANTAIL_JOB_ID", job.id}, {"FANTAIL_ATTEMPT", std::to_string(job.attempt)}, {"FANTAIL_TASK", job.task->name}};
    if (job.metadata.size() <= kMostMetadata) command.environment["FANTAIL_METADATA"] = job.metadata;
    command.deadline = job.deadline;
    command.stop_fd = job.stop_fd;
    std::string output;
    bool too_large = false;
    const auto outcome = run_shell(command, keeper, [&](std::string line) {
      output += line;
      output += '\n';
      too_large = output.size() > kMaxResultBytes;
      return !too_large;
    });
    const auto failed = [](int exit, std::string why) {
      return JobOutcome{.exit = exit, .result = "null", .error = std::move(why)};
    };
    if (!outcome) return failed(1, outcome.error().context);
    if (too_large || outcome->ending == ShellOutcome::Ending::kLineTooLong) {
      return failed(kExitTooLarge, "it printed more than 1 MiB; write large results to files and print their names");
    }
    if (outcome->ending == ShellOutcome::Ending::kTimedOut) {
      return failed(kExitStopped, "timeout: ended after " + std::to_string(to_milliseconds(job.task->timeout)) + " ms");
    }
    if (outcome->ending == ShellOutcome::Ending::kStopped) return failed(kExitStopped, "its worker was told to end");
    if (outcome->exit_code != 0) {
      std::string said = last_line_of(outcome->errors);
      if (said.empty() && outcome->exit_code < 0) {
        const char* name = ::sigabbrev_np(-outcome->exit_code);
        said = "ended by signal " + (name == nullptr ? std::to_string(-outcome->exit_code) : "SIG" + std::string(name));
      }
      return failed(outcome->exit_code, said.empty() ? "ended with " + std::to_string(outcome->exit_code) : said);
    }
    return {.exit = 0, .result = as_json(std::move(output)), .error = {}};
  };
}

}  // namespace fantail::pipeline
