// fantail-pipeline distribute and collect: one side each of a run over several hosts.
#include "common/base/program.h"
#include "pipeline/collector.h"
#include "pipeline/commands.h"
#include "pipeline/distributor.h"
#include "pipeline/run_options.h"
#include "pipeline/task_options.h"

namespace fantail::pipeline {

int distribute(int argc, const char* const* argv, const Command& command) {
  DistributorConfig config;
  TaskOptions tasks;
  RunOptions shown;
  bool no_resume = false;
  log::Level log_level = log::Level::kInfo;
  OptionSet options = options_of(command);
  options.group("Transport");
  options.text("endpoint", config.endpoint, "ADDR", "tcp or ipc: workers come here");
  options.text("collector", config.collector, "ADDR", "where the collector listens, as workers reach it");
  options.text("key-file", config.key_file, "FILE",
               "deal only with those who have this key (default: $FANTAIL_KEY_FILE)");
  tasks.describe(options);
  options.group("Run");
  shown.describe(options);
  options.flag("metadata", config.wait_for_metadata, "begin when 'fantail-pipeline metadata' has said what it has to");
  options.text("state-dir", config.state_dir, "DIR",
               "where it is kept what was handed out (default: $STATE_DIRECTORY, /var/lib or XDG)");
  options.flag("no-resume", no_resume, "begin anew, whatever is there of a run before");
  options.log_level(log_level);
  const auto problems = [&] {
    auto out = tasks.problems();
    for (auto& problem : shown.problems()) out.push_back(std::move(problem));
    for (const auto& address : {config.endpoint, config.collector}) {
      if (const auto at = parse_endpoint(address); !at) out.push_back(at.error().context);
    }
    return out;
  };
  if (const auto code = read_command_options(options, argc, argv, problems)) return *code;
  log::set_up(log_level);
  config.anew = no_resume;
  config.details = !shown.joblog.empty();
  auto jobs = tasks.open(TaskOptions::Stdin::kWhole);  // before signals wait to be taken: stdin may take long
  if (!jobs) return refuse(command, jobs.error());
  auto signals = StopSignals::block();
  if (!signals) return refuse(command, signals.error());
  auto report = RunReport::open(shown);
  if (!report) return refuse(command, report.error());
  Distributor* distributor = nullptr;
  Distributor::Hooks hooks;
  std::vector<std::pair<JobId, std::string>> dead_before;
  hooks.on_acknowledged = [&](const Acknowledgement& ack) {
    report->on_acknowledged(*distributor, ack, distributor->job_text(ack.job).value_or(""));
  };
  hooks.on_dead = [&](JobId job, int exit, const std::string& letter) {
    if (distributor != nullptr)
      report->on_dead(*distributor, job, exit, letter, distributor->job_text(job).value_or(""));
  };
  auto opened = Distributor::open(config, std::move(*jobs), std::move(hooks));
  if (!opened) return refuse(command, opened.error());
  distributor = opened->get();
  const int code = distributor->run(*signals, shown.drain, [&](MonoTime now) {
    report->turn(*distributor, now);
    if (report->halted() && !distributor->stopped()) distributor->stop();
    return report->halted_now() ? Distributor::Then::kEnd : Distributor::Then::kGoOn;
  });
  report->end(*distributor, mono_now());
  return code;
}

int collect(int argc, const char* const* argv, const Command& command) {
  CollectorConfig config;
  OptionSet options = options_of(command);
  config.describe(options);
  if (const auto code = read_command_options(options, argc, argv, [&] { return config.problems(); })) return *code;
  log::set_up(config.log_level);
  auto signals = StopSignals::block();
  if (!signals) return refuse(command, signals.error());
  auto collector = Collector::open(config);
  if (!collector) return refuse(command, collector.error());
  return (*collector)->run(*signals);
}

}  // namespace fantail::pipeline
