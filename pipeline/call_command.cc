// fantail-pipeline call: requests from the command line.
#include <charconv>
#include <cstdio>
#include <iostream>
#include <memory>

#include "common/base/program.h"
#include "common/base/text.h"
#include "common/json/json.h"
#include "common/rpc/rpc_client.h"
#include "common/rpc/worker_host.h"
#include "common/transport/endpoint.h"
#include "pipeline/commands.h"
#include "pipeline/greeting.h"

namespace fantail::pipeline {
namespace {

using rpc::CallError;

struct Calling {
  std::vector<std::string> words;
  std::vector<std::string> args;
  std::vector<std::string> kwargs;
  std::string type;
  std::string count = "1";
  std::string key_file;
  bool bind = false;
  bool json = false;
  Duration timeout = 5s;
  Json arguments;
  std::optional<std::uint64_t> times;  ///< nothing: for ever

  void describe(OptionSet& options) {
    options.list("arg", args, "JSON", "an argument; texts that are no JSON are taken as they are");
    options.list("kwarg", kwargs, "NAME=JSON", "a named argument");
    options.text("type", type, "TYPE", "of the workers that may do it");
    options.text("count", count, "N|forever", "make so many requests, one after the other");
    options.seconds("timeout", timeout, "wait so long for each answer, finding a worker included; 0: for ever");
    options.flag("bind", bind, "listen at ADDRESS: a worker connects to us, without a service between");
    options.text("key-file", key_file, "FILE", "the key of the service (default: $FANTAIL_KEY_FILE, else none)");
    options.flag("json", json, "print failures as JSON on stdout");
    options.positional(words, "ADDRESS METHOD", "whom to ask, and for what");
  }

  std::vector<std::string> problems() {
    std::vector<std::string> out;
    if (words.size() != 2) {
      out.push_back("takes ADDRESS and METHOD, not " + std::to_string(words.size()) + " arguments; see --help");
    } else {
      if (const auto endpoint = parse_endpoint(words[0]); !endpoint) {
        out.push_back(endpoint.error().context);
      } else if (!bind && endpoint->is_wildcard()) {
        out.push_back("'" + words[0] + "': cannot connect to a wildcard; name host and port");
      }
      if (words[1].empty() || words[1].size() > wire::kMaxNameBytes) {
        out.emplace_back("METHOD must have 1 to 255 bytes");
      }
    }
    // Requests are JSON.
    for (const auto* texts : {&args, &kwargs}) {
      for (const auto& text : *texts) {
        if (!is_utf8(text))
          out.push_back("--arg or --kwarg '" + printable(text) + "': is no UTF-8; encode it, as base64 for instance");
      }
    }
    if (!is_utf8(type)) out.push_back("--type '" + printable(type) + "': is no UTF-8");
    if (!out.empty()) return out;
    arguments = {{"args", Json::array()}, {"kwargs", Json::object()}};
    for (const auto& text : args) arguments["args"].push_back(value_of(text));
    for (const auto& text : kwargs) {
      const auto equals = text.find('=');
      if (equals == std::string::npos || equals == 0) {
        out.push_back("--kwarg '" + printable(text) + "': must be NAME=JSON");
        continue;
      }
      arguments["kwargs"][text.substr(0, equals)] = value_of(text.substr(equals + 1));
    }
    times.reset();
    if (count != "forever") {
      std::uint64_t number = 0;
      const auto [end, error] = std::from_chars(count.data(), count.data() + count.size(), number);
      if (error != std::errc{} || end != count.data() + count.size() || number == 0) {
        out.push_back("--count '" + printable(count) + "': must be a number from 1 on, or forever");
      }
      times = number;
    }
    return out;
  }

 private:
  static Json value_of(const std::string& text) {
    auto value = parse_json(text);
    return value ? std::move(*value) : Json(text);
  }
};

/// Whom requests go to: a service or a worker that listens, or workers that come to us.
class Callee {
 public:
  static Result<Callee> open(Context& context, const Calling& calling) {
    Callee callee;
    const rpc::CallOptions options{calling.timeout, false};
    callee.options_ = options;
    callee.type_ = calling.type;
    const ControlOptions control{.timing = {}, .max_message_bytes = kMaxMessageBytes};
    if (calling.bind) {
      auto host = rpc::WorkerHost::open(context, *parse_endpoint(calling.words[0]),
                                        self_as(wire::Role::kClient, host_name()), control);
      if (!host) return tl::unexpected(host.error());
      callee.host_ = std::move(*host);
      return callee;
    }
    auto client =
        rpc::RpcClient::connect(context, calling.words[0], self_as(wire::Role::kClient, host_name()), control);
    if (!client) return tl::unexpected(client.error());
    callee.client_ = std::move(*client);
    return callee;
  }

  rpc::CallResult<std::string> call(const std::string& method, const std::string& arguments,
                                    const rpc::CallTable::OnPartial& on_partial) {
    return host_ ? host_->call(type_, method, arguments, options_, on_partial)
                 : client_->call(method, arguments, options_, on_partial, type_);
  }

 private:
  rpc::CallOptions options_;
  std::string type_;
  std::unique_ptr<rpc::RpcClient> client_;
  std::unique_ptr<rpc::WorkerHost> host_;
};

int exit_of(const CallError& error) {
  switch (error.kind) {
    case CallError::Kind::kTimeout: return kTimeout;
    case CallError::Kind::kUnreachable:
    case CallError::Kind::kLost: return kUnreachable;
    case CallError::Kind::kRemote: break;
  }
  if (error.type == "no_worker" || error.type == "busy" || error.type == "lost") return kUnreachable;
  return error.type == "timeout" ? kTimeout : kFailed;
}

void report(const CallError& error, bool json) {
  if (json) {
    std::cout << to_text({{"error", {{"type", error.type}, {"message", error.message}, {"trace", error.trace}}}})
              << std::endl;
    return;
  }
  const std::string type = error.kind == CallError::Kind::kRemote && !error.type.empty() ? error.type + ": " : "";
  std::fprintf(stderr, "fantail-pipeline: %s%s\n", type.c_str(), error.message.c_str());
  if (!error.trace.empty() && error.trace != error.type + ": " + error.message) {
    std::fprintf(stderr, "%s\n", error.trace.c_str());
  }
  if (error.kind == CallError::Kind::kUnreachable && error.type.empty()) {
    std::fputs("is 'fantail-pipeline service', or a worker with --bind, running there?\n", stderr);
  }
}

}  // namespace

int call(int argc, const char* const* argv, const Command& command) {
  Calling calling;
  const std::string name = "fantail-pipeline " + std::string(command.name);
  OptionSet options = command_options("fantail-pipeline", command);
  calling.describe(options);
  switch (options.parse(argc, argv, [&] { return calling.problems(); })) {
    case OptionSet::Outcome::kExitOk: return kOk;
    case OptionSet::Outcome::kUsageError: return kUsage;
    case OptionSet::Outcome::kRun: break;
  }
  if (options.check_only()) return kOk;
  log::set_up(log::Level::kWarn);
  Context context;
  const auto refuse = [&](const Error& error) {
    std::fprintf(stderr, "%s: %s\n", name.c_str(), error.context.c_str());
    return exit_code_of(error);
  };
  if (const auto ok = context.protect_by(calling.key_file); !ok) return refuse(ok.error());
  auto callee = Callee::open(context, calling);
  if (!callee) return refuse(callee.error());
  const std::string arguments = to_text(calling.arguments);
  const auto print = [](std::string_view line) { std::cout << line << std::endl; };
  int code = kOk;
  for (std::uint64_t i = 0; !calling.times || i < *calling.times; ++i) {
    const auto answer = callee->call(calling.words[1], arguments, print);
    if (answer) {
      print(*answer);
      if (!std::cout) return kFailed;
    } else {
      report(answer.error(), calling.json);
      code = exit_of(answer.error());
      if (calling.times) return code;
    }
  }
  return code;
}

}  // namespace fantail::pipeline
