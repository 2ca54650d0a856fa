// fantail-state run: a private server, and processes that share it and end together.
#include <sys/stat.h>

#include <charconv>
#include <cstdio>

#include "common/base/signals.h"
#include "common/json/json.h"
#include "state/commands.h"
#include "state/private_server.h"

namespace fantail::state {
namespace {

/// "3" or "forever" into the policy; false for anything else.
bool read_retries(const std::string& text, RetryPolicy& policy) {
  if (text == "forever") {
    policy.retries.reset();
    return true;
  }
  unsigned number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  policy.retries = number;
  return error == std::errc{} && end == text.data() + text.size();
}

/// "1,75,SIGKILL" into exit codes and signals.
std::optional<std::string> read_causes(const std::string& text, RetryPolicy& policy) {
  std::size_t from = 0;
  while (from <= text.size()) {
    const auto comma = std::min(text.find(',', from), text.size());
    const std::string word = text.substr(from, comma - from);
    from = comma + 1;
    int number = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (error == std::errc{} && end == word.data() + word.size() && number > 0 && number < 256) {
      policy.exit_codes.insert(number);
      continue;
    }
    bool known = false;
    for (int signal = 1; signal < 32 && !known; ++signal) {
      const char* name = ::sigabbrev_np(signal);
      known = name != nullptr && (word == name || word == std::string("SIG") + name);
      if (known) policy.signals.insert(signal);
    }
    if (!known) return "'" + printable(word) + "' is neither an exit code from 1 to 255 nor a signal such as SIGKILL";
  }
  return std::nullopt;
}

std::string how(const Ending& ending) {
  if (ending.exit_code >= 0) return "ended with " + std::to_string(ending.exit_code);
  const char* name = ::sigabbrev_np(-ending.exit_code);
  return "was ended by signal " + std::to_string(-ending.exit_code) +
         (name == nullptr ? "" : std::string(" (SIG") + name + ")");
}

struct Running {
  std::uint64_t count = 1;
  std::string retries = "0";
  Duration retry_delay = 5s;
  std::string retry_on;
  Duration timeout{};
  std::vector<std::string> command;
  RetryPolicy policy;

  void describe(OptionSet& options) {
    options.number("count", count, 1, 10'000, "N", "start so many; each has its number from 0 in $FANTAIL_INDEX");
    options.text("retries", retries, "N|forever", "start one that failed so many times more");
    options.seconds("retry-delay", retry_delay, "so long after it ended");
    options.text("retry-on", retry_on, "CODE|SIGNAL,...", "only after these exit codes and signals (default any)");
    options.seconds("timeout", timeout, "end all that are left after so long, then exit with 3; 0: never");
  }
  std::vector<std::string> problems() {
    std::vector<std::string> out;
    policy = {};
    if (!read_retries(retries, policy)) {
      out.push_back("--retries '" + printable(retries) + "': must be a number or forever");
    }
    policy.delay = retry_delay;
    if (!retry_on.empty()) {
      if (const auto problem = read_causes(retry_on, policy)) out.push_back("--retry-on: " + *problem);
    }
    if (command.empty()) out.emplace_back("what to run? Give it behind --: fantail-state run -- COMMAND");
    return out;
  }
};

}  // namespace

int run(int argc, const char* const* argv, const Command& command) {
  Running running;
  std::vector<const char*> arguments(argv, argv + argc);
  running.command = take_command(arguments);
  const std::string name = "fantail-state " + std::string(command.name);
  OptionSet options = command_options("fantail-state", command);
  running.describe(options);
  switch (options.parse(static_cast<int>(arguments.size()), arguments.data(), [&] { return running.problems(); })) {
    case OptionSet::Outcome::kExitOk: return kOk;
    case OptionSet::Outcome::kUsageError: return kUsage;
    case OptionSet::Outcome::kRun: break;
  }
  if (options.check_only()) return kOk;
  const auto say = [&](const std::string& text) { std::fprintf(stderr, "%s: %s\n", name.c_str(), text.c_str()); };
  auto signals = StopSignals::block();
  if (!signals) {
    say(signals.error().context);
    return kFalse;
  }
  std::size_t first = 0;
  ProcessGroup group(500ms, [&](std::size_t index, const Ending& ending, Duration next_in) {
    say(std::to_string(index - first) + " " + how(ending) + "; tried " + std::to_string(ending.tries) + ", next in " +
        Json(std::chrono::duration<double>(next_in).count()).dump() + " s");
  });
  const auto server = PrivateServer::start(group);
  if (!server) {
    say(server.error().context);
    return kUnreachable;
  }
  first = server->index() + 1;
  for (std::uint64_t i = 0; i < running.count; ++i) {
    Task task;
    task.command = running.command;
    task.environment = {{"FANTAIL_STATE", server->address()}, {"FANTAIL_INDEX", std::to_string(i)}};
    if (const auto started = group.start(std::move(task), running.policy); !started) {
      say(started.error().context);
      return kFalse;
    }
  }
  std::optional<MonoTime> deadline;
  if (running.timeout > Duration::zero()) deadline = mono_now() + running.timeout;
  int code = kOk;
  for (std::size_t i = first; i < group.size(); ++i) {
    if (!group.wait_for(i, deadline, signals->fd())) {
      const bool stopped = signals->take() > 0;
      if (!stopped) say("not all had ended in time, ending them");
      return stopped ? kOk : static_cast<int>(kTimeout);
    }
    const Ending& ending = *group.ending(i);
    if (ending.ok()) continue;
    say(std::to_string(i - first) + " " + how(ending) +
        (ending.tries > 1 ? " after " + std::to_string(ending.tries) + " tries" : ""));
    if (code == kOk) code = ending.exit_code > 0 ? ending.exit_code : 128 - ending.exit_code;
  }
  return code;
}

}  // namespace fantail::state
