// fantail-pipeline listen: the events of a service's workers.
#include <cstdio>
#include <iostream>

#include "common/base/program.h"
#include "common/rpc/rpc_client.h"
#include "common/rpc/worker_pool.h"
#include "common/transport/endpoint.h"
#include "common/transport/waiter.h"
#include "pipeline/commands.h"
#include "pipeline/greeting.h"

namespace fantail::pipeline {
namespace {

struct Listening {
  std::vector<std::string> addresses;
  std::string key_file;
  std::uint64_t count = 0;
  Duration timeout{};

  void describe(OptionSet& options) {
    options.number("count", count, 0, UINT64_MAX, "N", "end after so many; 0: never");
    options.seconds("timeout", timeout, "end with 3 after so long; 0: never");
    options.text("key-file", key_file, "FILE", "the key of the service (default: $FANTAIL_KEY_FILE, else none)");
    options.positional(addresses, "ADDRESS", "of the service, tcp://HOST:PORT or ipc://PATH");
  }
  std::vector<std::string> problems() const {
    std::vector<std::string> out;
    if (addresses.size() != 1) out.push_back("takes one ADDRESS, not " + std::to_string(addresses.size()));
    for (const auto& address : addresses) {
      if (const auto endpoint = parse_endpoint(address); !endpoint) out.push_back(endpoint.error().context);
    }
    return out;
  }
};

}  // namespace

int listen(int argc, const char* const* argv, const Command& command) {
  Listening listening;
  const std::string name = "fantail-pipeline " + std::string(command.name);
  OptionSet options = command_options("fantail-pipeline", command);
  listening.describe(options);
  switch (options.parse(argc, argv, [&] { return listening.problems(); })) {
    case OptionSet::Outcome::kExitOk: return kOk;
    case OptionSet::Outcome::kUsageError: return kUsage;
    case OptionSet::Outcome::kRun: break;
  }
  if (options.check_only()) return kOk;
  log::set_up(log::Level::kInfo);
  const auto refuse = [&](const Error& error) {
    std::fprintf(stderr, "%s: %s\n", name.c_str(), error.context.c_str());
    return exit_code_of(error);
  };
  Context context;
  if (const auto ok = context.protect_by(listening.key_file); !ok) return refuse(ok.error());
  auto opened = rpc::RpcClient::connect(context, listening.addresses[0], self_as(wire::Role::kWorker, host_name()),
                                        {.timing = {}, .max_message_bytes = kMaxMessageBytes});
  if (!opened) return refuse(opened.error());
  rpc::RpcClient& client = **opened;
  std::optional<MonoTime> deadline;
  if (listening.timeout > Duration::zero()) deadline = mono_now() + listening.timeout;
  std::uint64_t seen = 0;
  bool begun = false;
  bool asked = false;
  std::optional<int> code;
  while (!code) {
    const MonoTime now = mono_now();
    if (!asked) {
      asked = true;
      begun = false;
      client.start({std::string(rpc::kListenMethod),
                    {},
                    {Duration::zero(), true},
                    [&](std::string_view event) {
                      if (!std::exchange(begun, true)) return log::info("listening", {{"endpoint", client.address()}});
                      if (code) return;
                      std::cout << event << '\n';
                      if (!std::cout) code = kFailed;
                      if (++seen == listening.count) code = kOk;
                    },
                    [&](rpc::CallResult<std::string> result) {
                      // The service went away, or we were too slow: what was told meanwhile is missed, and said to be.
                      if (!result) log::warn("events may be missing", {{"error", result.error().message}});
                      asked = false;
                    }});
    }
    const std::size_t work = client.turn(now);
    if (deadline && now >= *deadline && !code) code = kTimeout;
    if (work > 0 || code) continue;
    std::cout.flush();
    Waiter waiter;
    for (void* socket : client.native_sockets()) waiter.add_socket(socket);
    MonoTime until = std::min<MonoTime>(now + 1s, client.due());
    if (deadline) until = std::min(until, *deadline);
    waiter.wait(until - now);
  }
  return std::cout.flush() ? *code : static_cast<int>(kFailed);
}

}  // namespace fantail::pipeline
