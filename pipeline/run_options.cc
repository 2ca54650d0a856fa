#include "pipeline/run_options.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>

#include "common/base/log.h"
#include "common/json/json.h"
#include "pipeline/shell_jobs.h"

namespace fantail::pipeline {
namespace {

constexpr Duration kBarEvery = 100ms;
constexpr const char* kJoblogHead = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";

std::string clock_text(double seconds) {
  const auto s = static_cast<std::uint64_t>(seconds + 0.5);
  char text[32];
  if (s >= 3600) {
    std::snprintf(text, sizeof text, "%llu:%02llu:%02llu", static_cast<unsigned long long>(s / 3600),
                  static_cast<unsigned long long>(s / 60 % 60), static_cast<unsigned long long>(s % 60));
  } else {
    std::snprintf(text, sizeof text, "%llu:%02llu", static_cast<unsigned long long>(s / 60),
                  static_cast<unsigned long long>(s % 60));
  }
  return text;
}

/// Tabs and ends of lines would break the table.
std::string cell(std::string text) {
  for (char& c : text) {
    if (c == '\t' || c == '\n' || c == '\r') c = ' ';
  }
  return text;
}

}  // namespace

Result<Halt> Halt::parse(const std::string& text) {
  Halt out;
  if (text == "never") return out;
  const auto bad = [&] {
    return fail(ErrorCode::kInvalid, "--halt '" + printable(text) +
                                         "': must be never, or (now|soon),(fail|success|done)=(N|N%), as soon,fail=1");
  };
  const auto comma = text.find(',');
  const auto equals = text.find('=');
  if (comma == std::string::npos || equals == std::string::npos || equals < comma) return bad();
  const std::string when = text.substr(0, comma);
  const std::string what = text.substr(comma + 1, equals - comma - 1);
  std::string_view number = std::string_view(text).substr(equals + 1);
  if (when != "now" && when != "soon") return bad();
  out.now = when == "now";
  if (what == "fail") {
    out.what = What::kFail;
  } else if (what == "success") {
    out.what = What::kSuccess;
  } else if (what == "done") {
    out.what = What::kDone;
  } else {
    return bad();
  }
  const bool percent = number.ends_with('%');
  if (percent) number.remove_suffix(1);
  const auto [at, error] = std::from_chars(number.data(), number.data() + number.size(), out.count);
  if (error != std::errc{} || at != number.data() + number.size() || out.count == 0) return bad();
  if (percent) {
    if (out.count > 100) return bad();
    out.share = static_cast<double>(out.count) / 100;
    out.count = 0;
  }
  return out;
}

bool Halt::reached(std::uint64_t failed, std::uint64_t succeeded, std::uint64_t all) const {
  std::uint64_t seen = 0;
  switch (what) {
    case What::kNever: return false;
    case What::kFail: seen = failed; break;
    case What::kSuccess: seen = succeeded; break;
    case What::kDone: seen = failed + succeeded; break;
  }
  if (count > 0) return seen >= count;
  // A share of few jobs says little: three at least, as parallel has it.
  return seen >= 3 && static_cast<double>(seen) >= share * static_cast<double>(all);
}

void RunOptions::describe(OptionSet& options) {
  options.flag("bar", bar, "show on a terminal how far it is: done, rate, time left, workers, failures");
  options.text("joblog", joblog, "FILE", "a table of the jobs that have ended, columns as those of GNU parallel");
  options.text("halt", halt, "WHEN",
               "end early: never, or (now|soon),(fail|success|done)=(N|N%); what is going on is finished with soon");
  options.seconds("drain", drain, "when told to end, give what is going on so long; told twice, it ends at once");
}

std::vector<std::string> RunOptions::problems() const {
  std::vector<std::string> out;
  if (const auto parsed = Halt::parse(halt); !parsed) out.push_back(parsed.error().context);
  return out;
}

RunReport::RunReport(Halt halt, UniqueFd joblog, bool bar) : halt_(halt), joblog_(std::move(joblog)), bar_(bar) {}

Result<RunReport> RunReport::open(const RunOptions& options) {
  const auto halt = Halt::parse(options.halt);
  if (!halt) return tl::unexpected(halt.error());
  UniqueFd joblog;
  if (!options.joblog.empty()) {
    // Of a run that goes on everything that has ended is told again.
    joblog = UniqueFd(::open(options.joblog.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644));
    if (!joblog) {
      return fail(ErrorCode::kInvalid, error_of_errno(errno, "--joblog '" + options.joblog + "'").context +
                                           "; name a file that can be written");
    }
    if (::write(joblog.get(), kJoblogHead, std::string_view(kJoblogHead).size()) < 0) {
      return fail_errno(errno, "--joblog " + options.joblog);
    }
  }
  return RunReport(*halt, std::move(joblog), options.bar && ::isatty(STDERR_FILENO) != 0);
}

void RunReport::log(const Distributor& distributor, JobId job, const Acknowledgement& ack, int exit,
                    const std::string& line) {
  if (!joblog_) return;
  char times[64];
  std::snprintf(times, sizeof times, "%.3f\t%10.3f", ack.started, ack.seconds);
  const Task& task = distributor.task(job.task);
  const std::string row =
      std::to_string(job.number) + '\t' + cell(ack.worker) + '\t' + times + '\t' + std::to_string(line.size()) +
      "\t0\t" + std::to_string(exit < 0 ? 0 : exit) + '\t' + std::to_string(exit < 0 ? -exit : 0) + '\t' +
      cell(task.command.empty() ? task.spec.name + " " + line : with_line(task.command, line)) + '\n';
  if (::write(joblog_.get(), row.data(), row.size()) != static_cast<ssize_t>(row.size()) &&
      !std::exchange(complained_, true)) {
    log::error("cannot write --joblog, rows are missing", {{"error", error_of_errno(errno, "write")}});
  }
}

void RunReport::look_at_halt(const Distributor& distributor) {
  if (halt_.reached(failed_, succeeded_, distributor.board().progress().known)) halted_ = true;
}

void RunReport::on_acknowledged(const Distributor& distributor, const Acknowledgement& ack, const std::string& line) {
  ++succeeded_;
  log(distributor, ack.job, ack, 0, line);
  look_at_halt(distributor);
}

void RunReport::on_dead(const Distributor& distributor, JobId job, int exit, const std::string& letter,
                        const std::string& line) {
  ++failed_;
  Acknowledgement ack;
  const auto said = parse_json(letter);
  const bool readable = said && said->is_object();
  ack.worker = readable ? said->value("worker", "-") : "-";
  ack.started = readable ? said->value("started", 0.0) : 0;
  ack.seconds = readable ? said->value("seconds", 0.0) : 0;
  log(distributor, job, ack, exit, line);
  look_at_halt(distributor);
}

void RunReport::turn(const Distributor& distributor, MonoTime now) {
  if (!bar_ || now < next_bar_) return;
  next_bar_ = now + kBarEvery;
  log::set_status_line(bar_text(distributor, now));
}

void RunReport::end(const Distributor& distributor, MonoTime now) {
  if (!bar_) return;
  log::set_status_line({});
  log::say(bar_text(distributor, now));
}

std::string RunReport::bar_text(const Distributor& distributor, MonoTime now) {
  const auto p = distributor.board().progress();
  if (begun_ == MonoTime{}) begun_ = now;
  if (!done_at_begin_ && p.acknowledged > 0) {
    done_at_begin_ = p.acknowledged;
    begun_ = now;
  }
  const double elapsed = std::chrono::duration<double>(now - begun_).count();
  const double rate =
      elapsed > 0 && done_at_begin_ ? static_cast<double>(p.acknowledged - *done_at_begin_) / elapsed : 0;
  const std::uint64_t ended = p.acknowledged + p.dead;
  std::string line = std::to_string(ended) + "/" + std::to_string(p.known);
  if (!distributor.knows_all_jobs()) line += "+";
  char text[96];
  const double left = rate > 0 ? static_cast<double>(p.known - ended) / rate : 0;
  std::snprintf(text, sizeof text, "  %.1f/s  ETA %s  workers %zu  failures %llu", rate,
                rate > 0 ? clock_text(left).c_str() : "-", distributor.workers(),
                static_cast<unsigned long long>(distributor.failures()));
  line += text;
  if (p.dead > 0) line += "  given up " + std::to_string(p.dead);
  return line;
}

}  // namespace fantail::pipeline
