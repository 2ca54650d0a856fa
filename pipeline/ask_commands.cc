// fantail-pipeline dead, result, status, metadata, workers: what one asks of a run that goes on, or of what is left.
#include <charconv>
#include <cstdio>

#include "common/base/program.h"
#include "common/json/json.h"
#include "common/rpc/rpc_client.h"
#include "common/transport/endpoint.h"
#include "pipeline/collector_config.h"
#include "pipeline/commands.h"
#include "pipeline/distributor_journal.h"
#include "pipeline/greeting.h"
#include "pipeline/job_protocol.h"

namespace fantail::pipeline {
namespace {

/// Where to ask, and how long to wait.
struct Asking {
  std::string address;
  std::string key_file{};
  Duration timeout = 5s;
  std::vector<std::string> words{};

  void describe(OptionSet& options, const std::string& whom) {
    options.text("connect", address, "ADDR", "of the " + whom);
    options.seconds("timeout", timeout, "wait so long for an answer", 1ms);
    options.text("key-file", key_file, "FILE", "the key of the " + whom + " (default: $FANTAIL_KEY_FILE)");
  }
  std::vector<std::string> problems() const {
    std::vector<std::string> out;
    if (const auto at = parse_endpoint(address); !at) out.push_back(at.error().context);
    return out;
  }

  /// Asks, and gives the answer to `show`. The exit code.
  int ask(const Command& command, std::string_view method, const std::string& arguments,
          const std::function<void(const std::string&)>& show) const {
    log::set_up(log::Level::kWarn);
    Context context;
    if (const auto ok = context.protect_by(key_file); !ok) return refuse(command, ok.error());
    auto client = rpc::RpcClient::connect(context, address, self_as(wire::Role::kClient, host_name()),
                                          {.timing = {}, .max_message_bytes = kMaxMessageBytes});
    if (!client) return refuse(command, client.error());
    const auto answer = (*client)->call(method, arguments, {.timeout = timeout});
    if (answer) {
      show(*answer);
      return kOk;
    }
    std::fprintf(stderr, "fantail-pipeline %s: %s\n", std::string(command.name).c_str(),
                 answer.error().message.c_str());
    switch (answer.error().kind) {
      case rpc::CallError::Kind::kRemote: return kFailed;
      case rpc::CallError::Kind::kTimeout: return kTimeout;
      default: return kUnreachable;
    }
  }
};

void print(const std::string& text) { std::printf("%s\n", text.c_str()); }

void print_letters(const std::string& list) {
  const auto value = parse_json(list);
  if (!value) return;
  for (const Json& letter : *value) print(to_text(letter));
}

/// The same without a distributor: it is not running, its journal is there.
int dead_on_disk(const Command& command, const std::string& state_dir, const std::string& action,
                 const std::vector<std::string>& ids) {
  if (!DistributorJournal::exists_in(state_dir)) {
    return refuse(command, {ErrorCode::kInvalid, "--state-dir " + state_dir +
                                                     ": holds no journal of a distributor; name the one that the "
                                                     "distributor was started with, of 'run' its DIR/distributor"});
  }
  const auto directory = StateDirectory::open(state_dir);
  if (!directory) return refuse(command, directory.error());
  auto journal = DistributorJournal::open(*directory);
  if (!journal) return refuse(command, journal.error());
  std::vector<JobId> jobs;
  for (const auto& id : ids) {
    const auto job = journal->parse(id);
    if (!job || !journal->is_dead(*job)) {
      return refuse(command, {ErrorCode::kNotFound, "job " + printable(id) + ": is not in the dead-letter list"});
    }
    jobs.push_back(*job);
  }
  if (jobs.empty()) jobs = journal->dead();
  for (const JobId job : jobs) {
    if (action == "requeue") {
      journal->requeued(job);
      journal->troubled(job, {.attempts = 1});
    } else if (action == "purge") {
      journal->purged(job);
    } else if (const auto letter = journal->dead_letter(job)) {
      print(*letter);
    } else {
      return refuse(command, letter.error());
    }
  }
  if (const auto ok = journal->write(); !ok) return refuse(command, ok.error());
  if (action == "requeue") {
    std::fprintf(stderr, "fantail-pipeline dead: %zu jobs are done when the run is started again\n", jobs.size());
  }
  return kOk;
}

}  // namespace

int dead(int argc, const char* const* argv, const Command& command) {
  Asking asking{.address = kDefaultDistributor};
  std::string state_dir;
  OptionSet options = options_of(command);
  options.positional(asking.words, "list|show|requeue|purge [ID...]", "of these jobs; none: of all");
  asking.describe(options, "distributor that runs");
  options.text("state-dir", state_dir, "DIR", "of a distributor that does not run; of 'run': DIR/distributor");
  const auto problems = [&] {
    auto out = asking.problems();
    const auto& words = asking.words;
    const std::string action = words.empty() ? "" : words[0];
    if (action != "list" && action != "show" && action != "requeue" && action != "purge") {
      out.push_back("'" + printable(action) + "': must be list, show, requeue or purge");
    } else if (action == "show" && words.size() < 2) {
      out.emplace_back("show: which? Give it the ID of a job, as list prints it");
    }
    return out;
  };
  if (const auto code = read_command_options(options, argc, argv, problems)) return *code;
  const std::string action = asking.words[0] == "show" ? "list" : asking.words[0];
  const std::vector<std::string> ids(asking.words.begin() + 1, asking.words.end());
  if (!state_dir.empty()) return dead_on_disk(command, state_dir, action, ids);
  return asking.ask(command, kDead, to_text({{"action", action}, {"ids", ids}}), [&](const std::string& answer) {
    if (action == "list") print_letters(answer);
  });
}

int result(int argc, const char* const* argv, const Command& command) {
  Asking asking{.address = kDefaultCollector};
  std::string of_run;
  OptionSet options = options_of(command);
  options.positional(asking.words, "ID", "of a job, TASK:NUMBER");
  asking.describe(options, "collector");
  options.text("run", of_run, "RUN", "of this run (default: the last one)");
  const auto problems = [&] {
    auto out = asking.problems();
    if (asking.words.size() != 1) out.push_back("takes one ID, not " + std::to_string(asking.words.size()));
    return out;
  };
  if (const auto code = read_command_options(options, argc, argv, problems)) return *code;
  return asking.ask(command, kResult, to_text({{"id", asking.words[0]}, {"run", of_run}}), print);
}

int status(int argc, const char* const* argv, const Command& command) {
  Asking asking{.address = kDefaultDistributor};
  OptionSet options = options_of(command);
  asking.describe(options, "distributor or collector");
  if (const auto code = read_command_options(options, argc, argv, [&] { return asking.problems(); })) return *code;
  return asking.ask(command, kStatus, "{}", print);
}

int metadata(int argc, const char* const* argv, const Command& command) {
  Asking asking{.address = kDefaultDistributor};
  OptionSet options = options_of(command);
  options.positional(asking.words, "JSON", "what tasks, workers and the collector are to know");
  asking.describe(options, "distributor");
  const auto problems = [&] {
    auto out = asking.problems();
    if (asking.words.size() != 1) {
      out.push_back("takes one JSON, in quotes, not " + std::to_string(asking.words.size()) + " words");
    } else if (const auto value = parse_json(asking.words[0]); !value) {
      out.push_back("'" + printable(asking.words[0]) + "': " + value.error().context);
    }
    return out;
  };
  if (const auto code = read_command_options(options, argc, argv, problems)) return *code;
  return asking.ask(command, kMetadata, asking.words[0], [](const std::string&) {});
}

int workers(int argc, const char* const* argv, const Command& command) {
  Asking asking{.address = kDefaultDistributor};
  OptionSet options = options_of(command);
  std::uint32_t count = 0;
  options.positional(asking.words, "N", "so many worker processes from now on");
  asking.describe(options, "run that started them");
  const auto problems = [&] {
    auto out = asking.problems();
    const std::string text = asking.words.size() == 1 ? asking.words[0] : "";
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size() || count > 1024) {
      out.push_back("'" + printable(text) + "': must be a number, at most 1024");
    }
    return out;
  };
  if (const auto code = read_command_options(options, argc, argv, problems)) return *code;
  return asking.ask(command, kResize, to_text({{"workers", count}}), [](const std::string&) {});
}

}  // namespace fantail::pipeline
