// fantail-pipeline worker: answers requests with commands.
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdio>
#include <thread>
#include <utility>

#include "common/base/program.h"
#include "common/base/text.h"
#include "common/rpc/rpc_worker.h"
#include "common/transport/endpoint.h"
#include "pipeline/command_keeper.h"
#include "pipeline/command_method.h"
#include "pipeline/commands.h"
#include "pipeline/greeting.h"
#include "pipeline/shell_command.h"

namespace fantail::pipeline {
namespace {

struct Working {
  std::vector<std::string> addresses;
  std::vector<std::string> methods;
  std::vector<std::string> types;
  std::vector<std::string> emits;
  std::string name;
  std::string key_file;
  std::uint32_t concurrency = 1;
  bool bind = false;
  Duration drain = 10s;
  log::Level log_level = log::Level::kInfo;
  std::vector<CommandMethod> commands;
  std::vector<CommandMethod> emitters;

  void describe(OptionSet& options) {
    options.list("method", methods, "NAME=CMD",
                 "answers requests for NAME with CMD, run by sh -c: arguments as JSON on stdin, each line of stdout "
                 "but the last a partial answer");
    options.list("type", types, "TYPE", "takes requests of this type (default: of none)");
    options.list("emit", emits, "CHANNEL=CMD",
                 "runs CMD once connected and tells each line that it prints to whoever listens");
    options.text("name", name, "NAME", "unlike that of every other worker there (default: HOST:PID)");
    options.number("concurrency", concurrency, 1, rpc::kMaxSlots, "N", "so many requests at a time");
    options.flag("bind", bind, "listen at ADDRESS: clients call this worker directly");
    options.seconds("drain", drain, "when told to end, give what is going on so long");
    options.text("key-file", key_file, "FILE", "the key of the service (default: $FANTAIL_KEY_FILE, else none)");
    options.log_level(log_level);
    options.positional(addresses, "ADDRESS", "of the service, tcp://HOST:PORT or ipc://PATH");
  }

  std::vector<std::string> problems() {
    std::vector<std::string> out;
    commands.clear();
    emitters.clear();
    if (addresses.size() != 1) {
      out.push_back("takes one ADDRESS, not " + std::to_string(addresses.size()) + "; that of a service, for example " +
                    kDefaultEndpoint);
    }
    for (const auto& address : addresses) {
      if (const auto endpoint = parse_endpoint(address); !endpoint) out.push_back(endpoint.error().context);
    }
    if (methods.empty() && emits.empty()) {
      out.emplace_back("what can it do? Give it --method NAME=CMD, once or more, or --emit CHANNEL=CMD");
    }
    for (const auto& text : emits) {
      auto emitter = CommandMethod::parse("--emit", text);
      if (emitter) {
        emitters.push_back(std::move(*emitter));
      } else {
        out.push_back(emitter.error().context);
      }
    }
    for (const auto& text : methods) {
      auto method = CommandMethod::parse("--method", text);
      if (!method) {
        out.push_back(method.error().context);
        continue;
      }
      for (const auto& other : commands) {
        if (other.name == method->name) out.push_back("--method " + printable(method->name) + ": given twice");
      }
      commands.push_back(std::move(*method));
    }
    std::vector<std::string> told = types;  // in JSON
    told.push_back(name);
    for (const auto& text : methods) told.push_back(text.substr(0, text.find('=')));
    for (const auto& text : told) {
      if (!is_utf8(text)) out.push_back("'" + printable(text) + "': names and types must be UTF-8");
    }
    for (const auto& type : types) {
      if (type.size() > wire::kMaxNameBytes) out.emplace_back("--type: has at most 255 bytes");
    }
    if (name.size() > wire::kMaxNameBytes) out.emplace_back("--name: has at most 255 bytes");
    return out;
  }
};

/// Runs the commands of --emit, each on a thread of its own, from the first connection on.
class Emitters {
 public:
  Emitters(const std::vector<CommandMethod>& commands, const CommandKeeper& keeper, rpc::RpcWorker& worker)
      : commands_(commands), keeper_(keeper), worker_(worker), stop_(::eventfd(0, EFD_CLOEXEC)) {}
  ~Emitters() {
    worker_.end_events();
    const std::uint64_t one = 1;
    if (::write(stop_.get(), &one, sizeof one) < 0) {
      // It is an eventfd that nobody has written to: there is room.
    }
    threads_.clear();
  }
  void start() {
    if (std::exchange(started_, true)) return;
    for (const auto& command : commands_) threads_.emplace_back([this, &command] { run(command); });
  }

 private:
  void run(const CommandMethod& command) {
    ShellCommand shell;
    shell.text = command.command;
    shell.stop_fd = stop_.get();
    const auto outcome =
        run_shell(shell, keeper_, [&](std::string line) { return worker_.emit(command.name, std::move(line)); });
    if (!outcome) {
      log::error("cannot start what is to be told", {{"channel", command.name}, {"error", outcome.error()}});
    } else if (outcome->ending == ShellOutcome::Ending::kExited) {
      log::info("nothing more to tell", {{"channel", command.name}, {"exit", outcome->exit_code}});
    }
  }

  const std::vector<CommandMethod>& commands_;
  const CommandKeeper& keeper_;
  rpc::RpcWorker& worker_;
  UniqueFd stop_;
  bool started_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace

int worker(int argc, const char* const* argv, const Command& command) {
  Working working;
  const std::string name = "fantail-pipeline " + std::string(command.name);
  OptionSet options = command_options("fantail-pipeline", command);
  working.describe(options);
  switch (options.parse(argc, argv, [&] { return working.problems(); })) {
    case OptionSet::Outcome::kExitOk: return kOk;
    case OptionSet::Outcome::kUsageError: return kUsage;
    case OptionSet::Outcome::kRun: break;
  }
  if (options.check_only()) return kOk;
  log::set_up(working.log_level);
  const auto refuse = [&](const Error& error) {
    log::say(name + ": " + error.context);
    return exit_code_of(error);
  };
  auto keeper = CommandKeeper::start();
  if (!keeper) return refuse(keeper.error());
  auto signals = StopSignals::block();
  if (!signals) return refuse(signals.error());
  Context context;
  if (const auto ok = context.protect_by(working.key_file); !ok) return refuse(ok.error());
  rpc::WorkerOptions wanted;
  wanted.address = working.addresses[0];
  wanted.bind = working.bind;
  wanted.name = working.name.empty() ? host_name() + ":" + std::to_string(::getpid()) : working.name;
  if (!working.types.empty()) wanted.types = working.types;
  wanted.slots = working.concurrency;
  wanted.control.max_message_bytes = kMaxMessageBytes;
  auto opened = rpc::RpcWorker::open(context, wanted);
  if (!opened) return refuse(opened.error());
  rpc::RpcWorker& worker = **opened;
  for (auto& method : working.commands) worker.serve(method.name, command_method(method.command, *keeper));
  Emitters emitters(working.emitters, *keeper, worker);
  worker.hooks({{},
                [&](std::string_view peer) {
                  log::info("connected", {{"peer", peer}});
                  emitters.start();
                },
                [](std::string_view peer, std::string_view reason) {
                  log::info("disconnected", {{"peer", peer}, {"reason", reason}});
                }});
  log::info("worker started", {{"peer", wanted.name}, {"endpoint", worker.address()}});
  return worker.run(*signals, working.drain);
}

}  // namespace fantail::pipeline
