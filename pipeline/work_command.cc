// fantail-pipeline work: does jobs of a distributor with the commands of their tasks.
#include <unistd.h>

#include "common/base/program.h"
#include "common/transport/endpoint.h"
#include "pipeline/collector_config.h"
#include "pipeline/command_keeper.h"
#include "pipeline/commands.h"
#include "pipeline/job_worker.h"
#include "pipeline/shell_jobs.h"

namespace fantail::pipeline {

int work(int argc, const char* const* argv, const Command& command) {
  JobWorkerConfig config;
  config.distributor = kDefaultDistributor;
  Duration drain = 10s;
  log::Level log_level = log::Level::kInfo;
  constexpr std::uint32_t kMostThreads = 1024;
  OptionSet options = options_of(command);
  options.text("connect", config.distributor, "ADDR", "of the distributor");
  options.number("threads", config.threads, 1, kMostThreads, "N", "so many jobs at a time");
  options.text("name", config.name, "NAME", "unlike that of every other worker there (default: HOST:PID)");
  options.seconds("drain", drain, "when told to end, give what is going on so long; told twice, it ends at once");
  options.text("key-file", config.key_file, "FILE", "the key of the distributor (default: $FANTAIL_KEY_FILE)");
  options.log_level(log_level);
  const auto problems = [&] {
    std::vector<std::string> out;
    if (const auto at = parse_endpoint(config.distributor); !at) out.push_back(at.error().context);
    if (config.name.size() > wire::kMaxNameBytes) out.emplace_back("--name: has at most 255 bytes");
    return out;
  };
  if (const auto code = read_command_options(options, argc, argv, problems)) return *code;
  log::set_up(log_level);
  raise_descriptor_limit();
  if (config.name.empty()) config.name = host_name() + ":" + std::to_string(::getpid());
  auto keeper = CommandKeeper::start();
  if (!keeper) return refuse(command, keeper.error());
  auto signals = StopSignals::block();
  if (!signals) return refuse(command, signals.error());
  auto worker = JobWorker::open(config, shell_jobs(*keeper));
  if (!worker) return refuse(command, worker.error());
  log::info("worker started", {{"peer", config.name}, {"distributor", config.distributor}});
  return (*worker)->run(*signals, drain);
}

}  // namespace fantail::pipeline
