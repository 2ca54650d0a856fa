// fantail-state watch and wait.
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <iostream>

#include "common/base/program.h"
#include "common/json/json.h"
#include "state/commands.h"
#include "state/watcher.h"

namespace fantail::state {
namespace {

using rpc::CallError;

/// The flags of both.
struct Watching {
  std::string server;
  std::string interface;
  std::string from = "now";
  std::vector<std::string> keys;
  std::vector<std::string> prefixes;
  std::vector<std::string> exclude;
  std::string name_space = "default";
  std::string condition;
  std::string value;
  std::string test;
  bool live = false;
  bool identical = false;
  std::uint64_t count = 0;
  Duration timeout{};
  WatcherConfig config;

  void describe(OptionSet& options) {
    options.positional(keys, "KEY...", "the keys to watch (default all)");
    options.text("server", server, "ADDR",
                 "where the server listens (default: $FANTAIL_STATE, else tcp://127.0.0.1:5560)");
    options.text("key-file", config.key_file, "FILE", "the key of the server (default: $FANTAIL_KEY_FILE, else none)");
    options.text("interface", interface, "NAME|ADDR", "epgm: the network interface (default 127.0.0.1)");
    options.text("namespace", name_space, "NS", "the dictionary to watch");
    options.list("prefix", prefixes, "P", "keys that begin so");
    options.list("exclude", exclude, "KEY", "but not this one");
    options.text("when", condition, "CONDITION",
                 "only when it holds for the key: equal, not-equal, less, less-equal, greater, greater-equal (with "
                 "--value), truthy, falsy, null, not-null, available, absent; at once if it holds already");
    options.text("value", value, "JSON", "what --when compares with");
    options.text("if", test, "TEST",
                 "only when it holds for the namespace: '/key/member < JSON', also == != <= > >=, '/key' alone for "
                 "truthy, joined by ' && '");
    options.text("from", from, "now|beginning|REVISION", "begin with this change");
    options.flag("live", live, "only the newest change where several wait");
    options.flag("identical", identical, "also changes that set what was there already");
    options.seconds("timeout", timeout, "end with 3 when nothing came for so long; 0: never");
  }

  std::vector<std::string> problems() {
    std::vector<std::string> out;
    WatchSpec& spec = config.spec;
    config.server = server;
    config.interface = interface;
    config.live = live;
    spec = {};
    spec.name_space = name_space;
    spec.keys = keys;
    spec.prefixes = prefixes;
    spec.exclude = exclude;
    spec.identical = identical;
    config.from.reset();
    if (from == "beginning") {
      config.from = 0;
    } else if (from != "now") {
      std::uint64_t revision = 0;
      const auto [end, error] = std::from_chars(from.data(), from.data() + from.size(), revision);
      if (error != std::errc{} || end != from.data() + from.size() || revision == 0) {
        out.push_back("--from '" + printable(from) + "': must be now, beginning or a revision from 1");
      }
      config.from = revision;
    }
    if (!condition.empty()) {
      spec.condition = condition_from(condition);
      if (!spec.condition) {
        out.push_back("--when '" + printable(condition) + "': must be one of " + std::string(condition_names()));
      } else if (takes_operand(*spec.condition) && value.empty()) {
        out.push_back("--when '" + condition + "': needs --value JSON to compare with");
      }
    }
    if (!value.empty()) {
      const auto parsed = parse_json(value);
      if (!parsed) {
        out.push_back("--value '" + printable(value) + "': " + parsed.error().context + "; texts need quotes");
      } else {
        spec.operand = *parsed;
      }
      if (condition.empty()) out.push_back("--value '" + printable(value) + "': has no effect without --when");
    }
    if (!test.empty()) {
      const auto parsed = parse_test(test);
      if (!parsed) {
        out.push_back("--if: " + parsed.error().context);
      } else {
        spec.test = *parsed;
      }
    }
    for (auto& problem : spec.problems()) out.push_back(std::move(problem));
    return out;
  }
};

std::string text_of(const WatchEvent& event, const std::string& name_space, bool with_items) {
  if (event.change) {
    std::string text = to_event(*event.change);
    // With a test of the namespace: the namespace that passed it.
    if (with_items) text.insert(text.size() - 1, R"(,"items":)" + to_text(event.items));
    return text;
  }
  return to_text({{"revision", event.revision}, {"namespace", name_space}, {"kind", "holds"}, {"items", event.items}});
}

/// Runs `command` with `text` as its standard input. Returns how it ended, or nothing if it could not be started.
std::optional<int> run_with(const std::vector<std::string>& command, const std::string& text) {
  int pipe_ends[2];
  if (::pipe(pipe_ends) != 0) return std::nullopt;
  std::vector<char*> argv;
  for (const auto& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  if (child < 0) return std::nullopt;
  if (child == 0) {
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::signal(SIGPIPE, SIG_DFL);
    ::dup2(pipe_ends[0], STDIN_FILENO);
    ::close(pipe_ends[0]);
    ::close(pipe_ends[1]);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(pipe_ends[0]);
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t n = ::write(pipe_ends[1], rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;  // it does not read all of its input: its business
    rest.remove_prefix(static_cast<std::size_t>(n));
  }
  ::close(pipe_ends[1]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int follow(int argc, const char* const* argv, const Command& command, bool only_one) {
  std::vector<const char*> arguments(argv, argv + argc);
  const auto child = take_command(arguments);
  const std::string name = "fantail-state " + std::string(command.name);
  Watching watching;
  OptionSet options = command_options("fantail-state", command);
  watching.describe(options);
  if (!only_one) options.number("count", watching.count, 0, UINT32_MAX, "N", "end after so many; 0: never");
  switch (options.parse(static_cast<int>(arguments.size()), arguments.data(), [&] {
    auto problems = watching.problems();
    if (only_one && watching.condition.empty() && watching.test.empty() && watching.keys.empty()) {
      problems.emplace_back("what to wait for? Name a key, --when or --if");
    }
    return problems;
  })) {
    case OptionSet::Outcome::kExitOk: return kOk;
    case OptionSet::Outcome::kUsageError: return kUsage;
    case OptionSet::Outcome::kRun: break;
  }
  if (options.check_only()) return kOk;
  if (only_one) watching.count = 1;
  log::set_up(log::Level::kWarn);
  auto signals = StopSignals::block();
  if (!signals) {
    std::fprintf(stderr, "%s: %s\n", name.c_str(), signals.error().context.c_str());
    return kFalse;
  }
  ClientOptions reporting;
  auto watcher = StateWatcher::open(watching.config);
  if (!watcher) return report(watcher.error(), reporting);
  int last_exit = kOk;
  for (std::uint64_t seen = 0; watching.count == 0 || seen < watching.count; ++seen) {
    std::optional<MonoTime> deadline;
    if (watching.timeout > Duration::zero()) deadline = mono_now() + watching.timeout;
    const auto event = (*watcher)->next(deadline, signals->fd());
    if (!event) return report(event.error(), reporting);
    if (!*event) {
      if (signals->take() > 0) return kOk;
      std::fprintf(stderr, "%s: nothing came within %s s\n", name.c_str(),
                   Json(std::chrono::duration<double>(watching.timeout).count()).dump().c_str());
      return kTimeout;
    }
    const std::string text = text_of(**event, watching.name_space, !watching.test.empty()) + "\n";
    if (child.empty()) {
      std::cout << text << std::flush;
      if (!std::cout) return kOk;  // the reader is gone
      continue;
    }
    const auto code = run_with(child, text);
    if (!code) {
      std::fprintf(stderr, "%s: cannot start '%s'\n", name.c_str(), child.front().c_str());
      return kFalse;
    }
    if (*code != 0) std::fprintf(stderr, "%s: '%s' ended with %d\n", name.c_str(), child.front().c_str(), *code);
    last_exit = *code;
    if (signals->take() > 0) return kOk;
  }
  return last_exit == 0 ? kOk : kFalse;
}

}  // namespace

std::vector<std::string> take_command(std::vector<const char*>& arguments) {
  const auto dashes =
      std::find_if(arguments.begin(), arguments.end(), [](const char* a) { return std::string_view(a) == "--"; });
  if (dashes == arguments.end()) return {};
  std::vector<std::string> command(dashes + 1, arguments.end());
  arguments.erase(dashes, arguments.end());
  return command;
}

int watch(int argc, const char* const* argv, const Command& command) { return follow(argc, argv, command, false); }
int wait(int argc, const char* const* argv, const Command& command) { return follow(argc, argv, command, true); }

}  // namespace fantail::state
