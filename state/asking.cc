#include "state/asking.h"

#include <cstdio>
#include <iostream>

#include "common/json/json.h"
#include "common/transport/endpoint.h"

namespace fantail::state {

using rpc::CallError;

Asking::Asking(const Command& command, std::size_t least, std::size_t most)
    : name_("fantail-state " + std::string(command.name)),
      options(name_, name_ + " " + std::string(command.usage), std::string(command.summary)),
      least_(least),
      most_(most) {
  common.describe(options);
  options.positional(arguments, "ARGUMENT...", "see usage");
}

std::optional<int> Asking::parse(int argc, const char* const* argv,
                                 const std::function<std::vector<std::string>()>& check) {
  const auto outcome = options.parse(argc, argv, [&] {
    auto problems = common.problems();
    if (arguments.size() < least_ || arguments.size() > most_) {
      problems.push_back("takes " + std::to_string(least_) +
                         (most_ == least_     ? ""
                          : most_ == SIZE_MAX ? " or more"
                                              : " to " + std::to_string(most_)) +
                         " arguments, not " + std::to_string(arguments.size()) + "; see --help");
    } else if (check) {
      for (auto& problem : check()) problems.push_back(std::move(problem));
    }
    return problems;
  });
  switch (outcome) {
    case OptionSet::Outcome::kExitOk: return kOk;
    case OptionSet::Outcome::kUsageError: return kUsage;
    case OptionSet::Outcome::kRun: break;
  }
  if (options.check_only()) return kOk;
  auto opened = StateClient::open({.server = common.server,
                                   .name_space = common.name_space,
                                   .key_file = common.key_file,
                                   .timeout = common.timeout});
  if (!opened) {
    std::fprintf(stderr, "%s: %s\n", name_.c_str(), opened.error().context.c_str());
    return kUsage;
  }
  client = std::move(*opened);
  return std::nullopt;
}

int Asking::show(const StateClient::Answer<Json>& answer, const char* member, bool bare) const {
  if (!answer) return report(answer.error(), common);
  if (common.json) {
    std::cout << to_text(*answer) << '\n';
  } else if (member != nullptr && answer->contains(member)) {
    const Json& value = (*answer)[member];
    std::cout << (bare && value.is_string() ? value.get<std::string>() : to_text(value)) << '\n';
  }
  return std::cout.flush() ? kOk : kFalse;
}

std::optional<Json> Asking::json_argument(const std::string& text, std::vector<std::string>& problems) {
  auto value = parse_json(text);
  if (value) return std::move(*value);
  problems.push_back("'" + printable(text) + "': " + value.error().context + "; texts need quotes, or --string");
  return std::nullopt;
}

void ClientOptions::describe(OptionSet& options) {
  options.text("server", server, "ADDR",
               "where the server listens (default: $FANTAIL_STATE, else tcp://127.0.0.1:5560)");
  options.text("namespace", name_space, "NS", "the dictionary to use");
  options.text("key-file", key_file, "FILE", "the key of the server (default: $FANTAIL_KEY_FILE, else none)");
  options.seconds("timeout", timeout, "wait so long for an answer, connecting included; 0: for ever");
  options.flag("json", json, "print whole answers, also errors, as JSON");
}

std::vector<std::string> ClientOptions::problems() const {
  std::vector<std::string> out;
  if (const auto endpoint = parse_endpoint(server_address(server)); !endpoint) out.push_back(endpoint.error().context);
  if (name_space.empty()) out.emplace_back("--namespace '': must not be empty; leave it out for 'default'");
  return out;
}

int report(const CallError& error, const ClientOptions& options) {
  if (options.json) {
    std::cout << to_text({{"error", {{"type", error.type}, {"message", error.message}, {"trace", error.trace}}}})
              << '\n';
  } else {
    std::fprintf(stderr, "fantail-state: %s\n", error.message.c_str());
  }
  switch (error.kind) {
    case CallError::Kind::kUnreachable: return kUnreachable;
    case CallError::Kind::kTimeout: return kTimeout;
    case CallError::Kind::kLost: return kUnreachable;
    case CallError::Kind::kRemote: break;
  }
  return error.type == "bad_request" || error.type == "too_large" || error.type == "unknown_method" ? kUsage : kFalse;
}

}  // namespace fantail::state
