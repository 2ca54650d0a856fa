// fantail-pipeline run and map: a distributor, a collector and workers for one job, on this host.
#include <unistd.h>

#include <filesystem>

#include "common/base/private_directory.h"
#include "common/base/program.h"
#include "common/json/json.h"
#include "pipeline/collector.h"
#include "pipeline/command_keeper.h"
#include "pipeline/commands.h"
#include "pipeline/distributor.h"
#include "pipeline/local_workers.h"
#include "pipeline/result_printer.h"
#include "pipeline/run_options.h"
#include "pipeline/task_options.h"

namespace fantail::pipeline {
namespace {

constexpr Duration kLastWord = 2s;

struct Running {
  DistributorConfig distributor;
  CollectorConfig collector;
  TaskOptions tasks;
  RunOptions shown;
  ResultPrinter::Options printed;
  std::uint32_t workers = 0;  ///< 0: one for each processor
  std::uint32_t threads = 1;
  std::string state_dir;
  std::string key_file;
  log::Level log_level = log::Level::kWarn;

  void describe(OptionSet& options) {
    options.group("Workers");
    options.number("workers", workers, 0, 1024, "N", "processes on this host; 0: one for each processor");
    options.number("threads", threads, 1, 1024, "N", "jobs at a time in each of them");
    options.text("endpoint", distributor.endpoint, "ADDR",
                 "let workers of other hosts help: 'work --connect ADDR' (default: private)");
    options.text("collect-at", collector.endpoint, "ADDR", "where their results go to (default: private)");
    options.text("publish", collector.publish, "ADDR", "broadcast results here on results/TASK (default: private)");
    options.text("key-file", key_file, "FILE", "deal only with those who have this key (default: $FANTAIL_KEY_FILE)");
    options.group("Run");
    options.flag("keep-order", printed.keep_order, "print results in the order of the jobs");
    shown.describe(options);
    options.text("state-dir", state_dir, "DIR",
                 "keep here what is needed to go on when it is run again (default: nothing is kept)");
    options.flag("no-resume", distributor.anew, "begin anew, whatever is there of a run before");
    options.seconds("result-ttl", collector.result_ttl, "stay so long after the end, to be asked for results");
    options.log_level(log_level);
  }
  std::vector<std::string> problems() const {
    auto out = shown.problems();
    for (const auto& address : {distributor.endpoint, collector.endpoint, collector.publish}) {
      if (address.empty()) continue;
      if (const auto at = parse_endpoint(address); !at) out.push_back(at.error().context);
    }
    if (distributor.endpoint.empty() != collector.endpoint.empty()) {
      out.emplace_back("--endpoint and --collect-at: workers of other hosts need both");
    }
    return out;
  }
};

std::string dead_line(const std::string& letter) {
  auto value = parse_json(letter);
  if (!value || !value->is_object()) return letter;
  return R"({"id":)" + to_text((*value)["id"]) + R"(,"task":)" + to_text((*value)["task"]) + R"(,"attempt":)" +
         to_text((*value)["attempts"]) + R"(,"worker":)" + to_text((*value)["worker"]) + R"(,"started":)" +
         to_text(value->value("started", 0.0)) + R"(,"seconds":)" + to_text(value->value("seconds", 0.0)) +
         R"(,"exit":)" + to_text((*value)["exit"]) + R"(,"result":null,"error":)" + to_text((*value)["error"]) + "}";
}

/// All of it in one loop.
class LocalRun {
 public:
  LocalRun(Running& running, const CommandKeeper& keeper)
      : running_(running), printer_(running.printed), keeper_(keeper) {}

  Status open(std::vector<Task> tasks) {
    auto directory = PrivateDirectory::make();
    if (!directory) return tl::unexpected(directory.error());
    directory_.emplace(std::move(*directory));
    const std::string base = running_.state_dir.empty() ? directory_->path().string() : running_.state_dir;
    const auto address = [&](const char* name) { return "ipc://" + (directory_->path() / name).string() + ".sock"; };
    CollectorConfig collecting = running_.collector;
    if (collecting.endpoint.empty()) collecting.endpoint = address("collector");
    if (collecting.publish.empty()) collecting.publish = address("results");
    collecting.key_file = running_.key_file;
    collecting.state_dir = base + "/collector";
    collecting.drain = 500ms;
    auto collector = Collector::open(collecting);
    if (!collector) return tl::unexpected(collector.error());
    collector_ = std::move(*collector);

    auto report = RunReport::open(running_.shown);
    if (!report) return tl::unexpected(report.error());
    report_.emplace(std::move(*report));
    DistributorConfig distributing = running_.distributor;
    if (distributing.endpoint.empty()) distributing.endpoint = address("distributor");
    distributing.collector = collector_->address();
    distributing.key_file = running_.key_file;
    distributing.state_dir = base + "/distributor";
    distributing.details = !running_.shown.joblog.empty();
    Distributor::Hooks hooks;
    hooks.on_acknowledged = [this](const Acknowledgement& ack) {
      const bool row = !running_.shown.joblog.empty();
      report_->on_acknowledged(*distributor_, ack, row ? distributor_->job_text(ack.job).value_or("") : "");
    };
    hooks.on_dead = [this](JobId job, int exit, const std::string& letter) {
      printer_.given_up(job, running_.printed.results_only ? "" : dead_line(letter));
      if (distributor_) report_->on_dead(*distributor_, job, exit, letter, distributor_->job_text(job).value_or(""));
      if (running_.printed.results_only) log::error("a job was given up", {{"letter", letter}});
    };
    hooks.on_requeued = [this](JobId job) { printer_.requeued(job); };
    hooks.on_resize = [this](std::uint32_t count) {
      if (const auto ok = workers_->resize(count); !ok) log::error("cannot start workers", {{"error", ok.error()}});
    };
    auto distributor = Distributor::open(distributing, std::move(tasks), std::move(hooks));
    if (!distributor) return tl::unexpected(distributor.error());
    distributor_ = std::move(*distributor);

    workers_.emplace(LocalWorkers::Config{.distributor = distributor_->address(),
                                          .key_file = running_.key_file,
                                          .threads = running_.threads,
                                          .drain = running_.shown.drain},
                     keeper_);
    std::uint32_t count = running_.workers;
    if (count == 0) count = static_cast<std::uint32_t>(std::max(::sysconf(_SC_NPROCESSORS_ONLN), 1L));
    return workers_->resize(count);
  }

  int run(StopSignals& signals) {
    bool at_once = false;
    while (!over_) {
      const MonoTime now = mono_now();
      const std::size_t work = turn(now);
      if (const int stops = signals.take(); stops > 0) {
        at_once = distributor_->stopped() || distributor_->complete() || stops > 1;
        if (at_once) break;
        stop(now);
      }
      if (end_at_ && now >= *end_at_) break;
      if (work > 0) continue;
      Waiter waiter;
      waiter.add_descriptor(signals.fd());
      distributor_->add_to(waiter);
      collector_->add_to(waiter);
      workers_->add_to(waiter);
      MonoTime until = report_->due();
      if (!distributor_->ended()) until = std::min(until, distributor_->due(now));  // else only stdout is waited for
      if (!collector_->ended()) until = std::min(until, collector_->due(now));
      const CollectedRun* results = collector_->current();
      if (results != nullptr && !printer_.complete(*results)) until = std::min<MonoTime>(until, now + 10ms);
      waiter.wait(until - now);
    }
    workers_->kill_all();
    if (!at_once) print_the_rest(signals);
    report_->end(*distributor_, mono_now());
    return code();
  }

 private:
  std::size_t turn(MonoTime now) {
    std::size_t work = distributor_->turn(now) + collector_->turn(now) + workers_->turn(now);
    const CollectedRun* results = collector_->current();
    const bool first = results != nullptr && (!distributor_->stopped() || !printer_.broken());
    // The bar is drawn again with its next turn.
    if (first && shares_terminal_ && !printer_.complete(*results)) log::set_status_line({});
    if (first) work += printer_.turn(*results);
    report_->turn(*distributor_, now);
    if (printer_.broken() && !distributor_->stopped()) stop(now);
    if (report_->halted() && !distributor_->stopped()) {
      stop(now);
      if (report_->halted_now()) end_at_ = now;
    }
    const bool printed = results == nullptr || printer_.complete(*results);
    if (distributor_->ended() && printed) {
      over_ = distributor_->complete() ? collector_->ended()
                                       : workers_->running() == 0 || distributor_->board().progress().handed_out == 0;
    }
    if (!distributor_->complete() && !distributor_->stopped() && workers_->running() == 0 &&
        running_.distributor.endpoint.empty() && workers_->last_exit() > 0) {
      log::error("no worker can work", {{"exit", workers_->last_exit()}});
      over_ = true;
    }
    if (distributor_->failed() && printed) {
      log::error("the run cannot go on", {{"error", *distributor_->failed()}});
      over_ = true;
    }
    return work;
  }

  /// What the collector has, although the run may end before it is complete. Whoever reads it and takes nothing for a
  /// while is not waited for.
  void print_the_rest(StopSignals& signals) {
    const CollectedRun* results = collector_->current();
    if (results == nullptr) return;
    if (shares_terminal_) log::set_status_line({});
    printer_.ends();
    for (MonoTime until = mono_now() + kLastWord; !printer_.complete(*results);) {
      const MonoTime now = mono_now();
      if (now >= until || signals.take() > 0) return;
      collector_->turn(now);
      if (printer_.turn(*results) > 0) {
        until = now + kLastWord;
        continue;
      }
      Waiter waiter;
      waiter.add_descriptor(signals.fd());
      collector_->add_to(waiter);
      waiter.wait(10ms);
    }
  }

  void stop(MonoTime now) {
    distributor_->stop();
    workers_->drain();
    end_at_ = now + running_.shown.drain + kLastWord;
  }

  int code() const {
    const auto p = distributor_->board().progress();
    // --halt may come with the last of them.
    const bool complete = distributor_->complete() || (distributor_->knows_all_jobs() && p.acknowledged == p.known);
    if (complete && p.dead == 0) return kOk;
    if (!complete) {
      log::say("fantail-pipeline: ended before it was complete: " + std::to_string(p.acknowledged) + " of " +
               std::to_string(p.known) + " jobs are done" +
               (running_.state_dir.empty() ? "" : "; run it again to go on"));
    } else {
      log::say("fantail-pipeline: " + std::to_string(p.dead) + " of " + std::to_string(p.known) +
               " jobs were given up" +
               (running_.state_dir.empty()
                    ? ""
                    : "; see 'fantail-pipeline dead list --state-dir " + running_.state_dir + "/distributor'"));
    }
    return kFailed;
  }

  Running& running_;
  std::optional<PrivateDirectory> directory_;
  std::unique_ptr<Collector> collector_;
  std::unique_ptr<Distributor> distributor_;
  std::optional<LocalWorkers> workers_;
  std::optional<RunReport> report_;
  ResultPrinter printer_;
  const CommandKeeper& keeper_;
  std::optional<MonoTime> end_at_;
  bool over_ = false;
  const bool shares_terminal_ = running_.shown.bar && ::isatty(STDOUT_FILENO) == 1;
};

int start(Running& running, const Command& command) {
  log::set_up(running.log_level);
  auto keeper = CommandKeeper::start();
  if (!keeper) return refuse(command, keeper.error());
  // Before signals wait to be taken: all of stdin may take long.
  auto tasks =
      running.tasks.open(running.state_dir.empty() ? TaskOptions::Stdin::kAsItComes : TaskOptions::Stdin::kWhole);
  if (!tasks) return refuse(command, tasks.error());
  auto signals = StopSignals::block();
  if (!signals) return refuse(command, signals.error());
  LocalRun run(running, *keeper);
  if (const auto ok = run.open(std::move(*tasks)); !ok) return refuse(command, ok.error());
  return run.run(*signals);
}

Running private_by_default() {
  Running running;
  running.distributor.endpoint.clear();
  running.collector.endpoint.clear();
  return running;
}

}  // namespace

int run(int argc, const char* const* argv, const Command& command) {
  Running running = private_by_default();
  OptionSet options = options_of(command);
  running.tasks.describe(options);
  running.describe(options);
  const auto problems = [&] {
    auto out = running.tasks.problems();
    for (auto& problem : running.problems()) out.push_back(std::move(problem));
    return out;
  };
  if (const auto code = read_command_options(options, argc, argv, problems)) return *code;
  return start(running, command);
}

int map(int argc, const char* const* argv, const Command& command) {
  Running running = private_by_default();
  std::vector<std::string> words;
  std::string lines = "-";
  OptionSet options = options_of(command);
  options.positional(words, "CMD", "what to do with each line: run by sh -c, {} in it is the line, quoted");
  options.text("lines", lines, "FILE", "each line is a job; - is stdin");
  running.tasks.describe_attempts(options);
  running.describe(options);
  const auto problems = [&] {
    auto out = running.problems();
    if (words.size() != 1) {
      out.push_back("takes one CMD, in quotes, not " + std::to_string(words.size()) + " words");
      return out;
    }
    running.tasks.lines = {lines};
    running.tasks.tasks = {"map=" + words[0]};
    running.tasks.given = {{"lines", lines}, {"task", running.tasks.tasks[0]}};
    for (auto& problem : running.tasks.problems()) out.push_back(std::move(problem));
    return out;
  };
  if (const auto code = read_command_options(options, argc, argv, problems)) return *code;
  running.printed.keep_order = true;
  running.printed.results_only = true;
  return start(running, command);
}

}  // namespace fantail::pipeline
