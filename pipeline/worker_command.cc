// fantail-pipeline worker: answers requests with commands.
#include <unistd.h>

#include <cstdio>

#include "common/base/program.h"
#include "common/rpc/rpc_worker.h"
#include "common/transport/endpoint.h"
#include "pipeline/command_keeper.h"
#include "pipeline/command_method.h"
#include "pipeline/commands.h"

namespace fantail::pipeline {
namespace {

struct Working {
  std::vector<std::string> addresses;
  std::vector<std::string> methods;
  std::vector<std::string> types;
  std::string name;
  std::string key_file;
  std::uint32_t concurrency = 1;
  bool bind = false;
  Duration drain = 10s;
  log::Level log_level = log::Level::kInfo;
  std::vector<CommandMethod> commands;

  void describe(OptionSet& options) {
    options.list("method", methods, "NAME=CMD",
                 "answers requests for NAME with CMD, run by sh -c: arguments as JSON on stdin, each line of stdout "
                 "but the last a partial answer");
    options.list("type", types, "TYPE", "takes requests of this type (default: of none)");
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
    if (addresses.size() != 1) {
      out.push_back("takes one ADDRESS, not " + std::to_string(addresses.size()) + "; that of a service, for example " +
                    kDefaultEndpoint);
    }
    for (const auto& address : addresses) {
      if (const auto endpoint = parse_endpoint(address); !endpoint) out.push_back(endpoint.error().context);
    }
    if (methods.empty()) out.emplace_back("what can it do? Give it --method NAME=CMD, once or more");
    for (const auto& text : methods) {
      auto method = CommandMethod::parse(text);
      if (!method) {
        out.push_back(method.error().context);
        continue;
      }
      for (const auto& other : commands) {
        if (other.name == method->name) out.push_back("--method " + printable(method->name) + ": given twice");
      }
      commands.push_back(std::move(*method));
    }
    for (const auto& type : types) {
      if (type.size() > wire::kMaxNameBytes) out.emplace_back("--type: has at most 255 bytes");
    }
    if (name.size() > wire::kMaxNameBytes) out.emplace_back("--name: has at most 255 bytes");
    return out;
  }
};

}  // namespace

int worker(int argc, const char* const* argv, const Command& command) {
  Working working;
  const std::string name = "fantail-pipeline " + std::string(command.name);
  OptionSet options(name, name + " " + std::string(command.usage), std::string(command.summary));
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
  worker.hooks({{},
                [](std::string_view peer) {
                  log::info("connected", {{"peer", peer}});
                },
                [](std::string_view peer, std::string_view reason) {
                  log::info("disconnected", {{"peer", peer}, {"reason", reason}});
                }});
  log::info("worker started", {{"peer", wanted.name}, {"endpoint", worker.address()}});
  return worker.run(*signals, working.drain);
}

}  // namespace fantail::pipeline
