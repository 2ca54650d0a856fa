#include "state/commands.h"

#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <iterator>
#include <optional>

#include "common/base/program.h"
#include "common/json/json.h"
#include "state/asking.h"
#include "state/server.h"

namespace fantail::state {
namespace {

using rpc::CallError;

int get(int argc, const char* const* argv, const Command& command) {
  Asking ask(command, 1, 1);
  std::string otherwise;
  bool bare = false;
  Json arguments;
  ask.options.text("default", otherwise, "JSON", "print this when the key is absent, instead of ending with 1");
  ask.options.flag("string", bare, "print a text without quotes");
  if (const auto code = ask.parse(argc, argv, [&] {
        std::vector<std::string> problems;
        arguments = {{"key", ask.arguments[0]}};
        if (!otherwise.empty()) {
          if (const auto value = Asking::json_argument(otherwise, problems)) arguments["default"] = *value;
        }
        return problems;
      })) {
    return *code;
  }
  return ask.show(ask.client->call("get", arguments, true), "value", bare);
}

/// Renews a session until it is told to stop: the key goes with this process.
int hold(StateClient& client, SessionId session, Duration lease, const ClientOptions& options) {
  auto signals = StopSignals::block();
  if (!signals) {
    std::fprintf(stderr, "fantail-state set: %s\n", signals.error().context.c_str());
    return kFalse;
  }
  for (;;) {
    Waiter waiter;
    waiter.add_descriptor(signals->fd());
    waiter.wait(lease / 3);
    if (signals->take() > 0) break;
    if (const auto renewed = client.renew_session(session); !renewed) {
      if (renewed.error().kind == CallError::Kind::kRemote) return report(renewed.error(), options);
      std::fprintf(stderr, "fantail-state set: %s\n", renewed.error().message.c_str());  // perhaps it comes back
    }
  }
  const auto closed = client.close_session(session);
  return closed ? kOk : report(closed.error(), options);
}

int set(int argc, const char* const* argv, const Command& command) {
  Asking ask(command, 2, 2);
  bool bare = false;
  bool in_session = false;
  Duration ttl{};
  Duration lease = 5s;
  Json value;
  ask.options.flag("string", bare, "JSON is a bare text");
  ask.options.seconds("ttl", ttl, "the key expires after so long; 0: never");
  ask.options.flag("session", in_session, "hold the key: it goes when this command ends, however it ends");
  ask.options.seconds("lease", lease, "how long the key outlives a command that was killed", 100ms);
  if (const auto code = ask.parse(argc, argv, [&] {
        std::vector<std::string> problems;
        if (bare) {
          value = ask.arguments[1];
        } else if (const auto parsed = Asking::json_argument(ask.arguments[1], problems)) {
          value = *parsed;
        }
        return problems;
      })) {
    return *code;
  }
  PutOptions put;
  if (ttl > Duration::zero()) put.ttl = ttl;
  if (in_session) {
    const auto session = ask.client->open_session(lease);
    if (!session) return report(session.error(), ask.common);
    put.session = *session;
  }
  if (const auto done = ask.client->set(ask.arguments[0], value, put); !done) return report(done.error(), ask.common);
  return in_session ? hold(*ask.client, put.session, lease, ask.common) : static_cast<int>(kOk);
}

/// A command whose arguments are the members of the request, each a text or JSON.
struct Member {
  const char* name;
  bool json;
};
template <std::size_t N>
int simple(int argc, const char* const* argv, const Command& command, const char* operation,
           const std::array<Member, N>& members, std::size_t least, const char* shown, bool repeatable = false) {
  Asking ask(command, least, N);
  bool bare = false;
  ask.options.flag("string", bare, "JSON arguments are bare texts");
  Json arguments = Json::object();
  if (const auto code = ask.parse(argc, argv, [&] {
        std::vector<std::string> problems;
        for (std::size_t i = 0; i < ask.arguments.size(); ++i) {
          if (!members[i].json || bare) {
            arguments[members[i].name] = ask.arguments[i];
          } else if (const auto value = Asking::json_argument(ask.arguments[i], problems)) {
            arguments[members[i].name] = *value;
          }
        }
        return problems;
      })) {
    return *code;
  }
  return ask.show(ask.client->call(operation, arguments, repeatable), shown, bare);
}

int erase(int argc, const char* const* argv, const Command& c) {
  return simple<1>(argc, argv, c, "delete", {{{"key", false}}}, 1, nullptr);
}
int incr(int argc, const char* const* argv, const Command& c) {
  return simple<2>(argc, argv, c, "increment", {{{"key", false}, {"by", true}}}, 1, "value");
}
int decr(int argc, const char* const* argv, const Command& c) {
  return simple<2>(argc, argv, c, "decrement", {{{"key", false}, {"by", true}}}, 1, "value");
}
int append(int argc, const char* const* argv, const Command& c) {
  return simple<2>(argc, argv, c, "append", {{{"key", false}, {"value", true}}}, 2, "value");
}
int pop(int argc, const char* const* argv, const Command& c) {
  return simple<1>(argc, argv, c, "pop", {{{"key", false}}}, 1, "value");
}
int patch(int argc, const char* const* argv, const Command& c) {
  return simple<2>(argc, argv, c, "merge_patch", {{{"key", false}, {"patch", true}}}, 2, "value");
}
int clear(int argc, const char* const* argv, const Command& c) {
  return simple<0>(argc, argv, c, "clear", {}, 0, nullptr);
}

int cas(int argc, const char* const* argv, const Command& command) {
  Asking ask(command, 2, 3);
  std::string revision;
  ask.options.text("revision", revision, "R", "compare the key's revision instead of its value; 0: it must be absent");
  Json arguments;
  if (const auto code = ask.parse(argc, argv, [&] {
        std::vector<std::string> problems;
        arguments = {{"key", ask.arguments[0]}};
        if (ask.arguments.size() != (revision.empty() ? 3U : 2U)) {
          problems.emplace_back("takes KEY OLD NEW, or KEY --revision R NEW");
          return problems;
        }
        const std::string old = revision.empty() ? ask.arguments[1] : revision;
        if (const auto value = Asking::json_argument(old, problems)) {
          arguments[revision.empty() ? "old" : "revision"] = *value;
        }
        if (const auto value = Asking::json_argument(ask.arguments.back(), problems)) arguments["value"] = *value;
        return problems;
      })) {
    return *code;
  }
  return ask.show(ask.client->call("cas", arguments));
}

/// All of standard input as JSON.
std::optional<Json> from_stdin(const char* name) {
  const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  auto value = parse_json(text, kMaxMessageDepth);
  if (value && value->is_object()) return std::move(*value);
  std::fprintf(stderr, "fantail-state %s: standard input: %s\n", name,
               value ? "must be a JSON object" : value.error().context.c_str());
  return std::nullopt;
}

int txn(int argc, const char* const* argv, const Command& command) {
  Asking ask(command, 0, 0);
  if (const auto code = ask.parse(argc, argv)) return *code;
  const auto arguments = from_stdin("txn");
  if (!arguments) return kUsage;
  const auto answer = ask.client->call("txn", *arguments);
  if (!answer) return report(answer.error(), ask.common);
  std::cout << to_text(*answer) << '\n';
  return answer->value("succeeded", false) ? kOk : kFalse;
}

int keys(int argc, const char* const* argv, const Command& command) {
  Asking ask(command, 0, 1);
  if (const auto code = ask.parse(argc, argv)) return *code;
  const auto answer = ask.client->call("keys", {{"prefix", ask.arguments.empty() ? "" : ask.arguments[0]}}, true);
  if (!answer || ask.common.json) return ask.show(answer);
  for (const Json& key : (*answer)["value"]) std::cout << key.get<std::string>() << '\n';
  return kOk;
}

int dump(int argc, const char* const* argv, const Command& command) {
  Asking ask(command, 0, 1);
  if (const auto code = ask.parse(argc, argv)) return *code;
  return ask.show(ask.client->call("items", {{"prefix", ask.arguments.empty() ? "" : ask.arguments[0]}}, true),
                  "value");
}

int load(int argc, const char* const* argv, const Command& command) {
  Asking ask(command, 0, 0);
  bool replace = false;
  ask.options.flag("replace", replace, "keys that the input does not have are deleted");
  if (const auto code = ask.parse(argc, argv)) return *code;
  const auto values = from_stdin("load");
  if (!values) return kUsage;
  return ask.show(ask.client->call(replace ? "replace" : "update", {{"values", *values}}));
}

int ping(int argc, const char* const* argv, const Command& command) {
  Asking ask(command, 0, 0);
  if (const auto code = ask.parse(argc, argv)) return *code;
  // 56 random bytes, as the ping that everybody knows.
  std::string payload;
  for (int i = 0; i < 4; ++i) payload += to_string(random_id<InstanceId>());
  payload.resize(112);
  const MonoTime begin = mono_now();
  const auto answer = ask.client->call("ping", {{"payload", payload}}, true);
  const MonoTime end = mono_now();
  if (!answer) return report(answer.error(), ask.common);
  if (answer->value("payload", "") != payload) {
    std::fprintf(stderr, "fantail-state ping: the answer is to another ping\n");
    return kFalse;
  }
  const double ms = std::chrono::duration<double, std::milli>(end - begin).count();
  if (ask.common.json) {
    std::cout << to_text({{"pid", (*answer)["pid"]}, {"ms", ms}, {"time", (*answer)["time"]}}) << '\n';
  } else {
    std::cout << (*answer)["pid"] << '\n';
  }
  return kOk;
}

int time(int argc, const char* const* argv, const Command& command) {
  Asking ask(command, 0, 0);
  if (const auto code = ask.parse(argc, argv)) return *code;
  return ask.show(ask.client->call("ping", {}, true), "time");
}

int info(int argc, const char* const* argv, const Command& command) {
  Asking ask(command, 0, 0);
  if (const auto code = ask.parse(argc, argv)) return *code;
  const auto answer = ask.client->call("info", {}, true);
  if (answer) ask.common.json = true;
  return ask.show(answer);
}

}  // namespace

int serve(int argc, const char* const* argv, const Command& command) {
  ServerConfig config;
  const std::string name = "fantail-state " + std::string(command.name);
  OptionSet options = command_options("fantail-state", command);
  config.describe(options);
  return run_program<StateServer>(argc, argv, name.c_str(), options, config);
}

namespace {

int keygen(int argc, const char* const* argv, const Command& command) {
  const std::string name = "fantail-state " + std::string(command.name);
  std::vector<std::string> files;
  OptionSet options = command_options("fantail-state", command);
  options.positional(files, "FILE", "where to write it");
  const auto outcome = options.parse(argc, argv, [&] {
    return files.size() == 1 ? std::vector<std::string>() : std::vector<std::string>{"takes one FILE; see --help"};
  });
  if (outcome == OptionSet::Outcome::kExitOk || options.check_only()) return kOk;
  if (outcome == OptionSet::Outcome::kUsageError) return kUsage;
  if (const auto made = CurveKey::make(files[0]); !made) {
    std::fprintf(stderr, "%s: %s\n", name.c_str(), made.error().context.c_str());
    return made.error().code == ErrorCode::kBusy ? kUsage : kFalse;
  }
  return kOk;
}

}  // namespace

const std::vector<Command>& commands() {
  static const std::vector<Command> kCommands = {
      {"serve", "[options]", "Keeps dictionaries of JSON values and broadcasts every change.", serve},
      {"keygen", "[options] FILE", "Writes a new key, for --key-file of the server and of all who belong to it.",
       keygen},
      {"get", "[options] KEY", "Prints the value of a key.", get},
      {"set", "[options] KEY JSON", "Sets a key.", set},
      {"del", "[options] KEY", "Deletes a key; ends with 1 if it is absent.", erase},
      {"incr", "[options] KEY [BY]", "Adds to a number, absent counts as 0, and prints it.", incr},
      {"decr", "[options] KEY [BY]", "Subtracts from a number, absent counts as 0, and prints it.", decr},
      {"append", "[options] KEY JSON", "Appends to an array, absent counts as [], and prints its length.", append},
      {"pop", "[options] KEY", "Deletes a key and prints its value.", pop},
      {"patch", "[options] KEY JSON", "Changes parts of a value (JSON merge patch, RFC 7396) and prints it.", patch},
      {"cas", "[options] KEY OLD NEW | KEY --revision R NEW",
       "Sets a key only if it has the old value or revision; ends with 1 if it has not.", cas},
      {"txn", "[options] < JSON",
       R"(Runs {"if": [{"key","op","value"}...], "then": [["set",key,value]...], "else": [...]}.)", txn},
      {"keys", "[options] [PREFIX]", "Prints the keys, one a line.", keys},
      {"dump", "[options] [PREFIX]", "Prints all keys and values as one JSON object.", dump},
      {"load", "[options] < JSON", "Sets the keys of a JSON object.", load},
      {"clear", "[options]", "Deletes all keys of the namespace.", clear},
      {"watch", "[options] [KEY...] [-- COMMAND...]",
       "Prints each change as a line of JSON, or runs COMMAND with it as standard input.", watch},
      {"wait", "[options] [KEY...] [-- COMMAND...]", "The same, once: ends when a change comes or a condition holds.",
       wait},
      {"run", "[options] -- COMMAND...",
       "Starts a private server and programs that share it ($FANTAIL_STATE); at its end, however it ends, all go.",
       run},
      {"ping", "[options]", "Asks the server for a sign of life and prints its process id.", ping},
      {"time", "[options]", "Prints the server's time, nanoseconds since 1970 UTC.", time},
      {"info", "[options]", "Prints what the server says of itself.", info},
  };
  return kCommands;
}

}  // namespace fantail::state
