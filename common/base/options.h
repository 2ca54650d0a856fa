#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/log.h"

namespace fantail {

/// `text` with control characters as \xNN: for messages about it.
std::string printable(std::string_view text);

/// The flags of one program. Each fills a field of a plain config struct, whose initial value is the default; a config
/// file (INI, the same names without dashes) fills the same fields first and flags win. All mistakes are collected,
/// each with the value, the reason and the remedy.
class OptionSet {
 public:
  OptionSet(std::string program, std::string usage, std::string summary);

  void group(std::string title);
  void text(std::string name, std::string& target, std::string argument, std::string help);
  /// `repeatable`: for --help; a list that must not have more than one is for problems() of the configuration to
  /// refuse.
  void list(std::string name, std::vector<std::string>& target, std::string argument, std::string help,
            bool repeatable = true);
  void flag(std::string name, bool& target, std::string help);
  /// Everything that is given, each with its value, in the order in which they stand: for options that speak of
  /// the one before them, or of what comes behind them. Those of a config file come first; a positional is a `file`.
  struct Given {
    std::string name;
    std::string value;
  };
  void in_order(std::vector<Given>& target) { in_order_ = &target; }
  template <std::unsigned_integral T>
  void number(std::string name, T& target, std::uint64_t least, std::uint64_t most, std::string argument,
              std::string help) {
    add_number(
        std::move(name), [&target] { return std::uint64_t{target}; },
        [&target](std::uint64_t v) { target = static_cast<T>(v); }, least, most, std::move(argument), std::move(help));
  }
  /// Accepts K, M, G and KiB, MiB, GiB (all powers of 1024).
  void bytes(std::string name, std::uint64_t& target, std::uint64_t least, std::string help);
  /// Decimals allowed. `least`: of what is done that often, so that it does not keep a processor busy.
  void seconds(std::string name, Duration& target, std::string help, Duration least = {});
  void milliseconds(std::string name, Duration& target, std::string help);
  void log_level(log::Level& target);
  void choice(std::string name, std::string& target, std::vector<std::string> allowed, std::string help);
  void positional(std::vector<std::string>& target, std::string name, std::string help);

  enum class Outcome : std::uint8_t { kRun, kExitOk, kUsageError };
  /// Handles --help, --version, --print-config and --config itself. `check` adds problems of the whole configuration.
  /// Prints what there is to print: help and config on stdout, problems on stderr.
  Outcome parse(int argc, const char* const* argv, const std::function<std::vector<std::string>()>& check);
  /// --check was given and everything is in order: the caller may look at the system before it says so.
  bool check_only() const { return check_only_; }

 private:
  struct Option {
    std::string name;
    std::string argument;  ///< empty for flags
    std::string help;
    std::string group;
    bool many = false;
    std::function<std::optional<std::string>(const std::vector<std::string>&)> set;  ///< a problem, or nothing
    std::function<std::vector<std::string>()> get;
  };
  void add(Option option);
  void add_number(std::string name, std::function<std::uint64_t()> get, std::function<void(std::uint64_t)> set,
                  std::uint64_t least, std::uint64_t most, std::string argument, std::string help);
  void add_duration(std::string name, Duration& target, double unit_seconds, std::string unit, std::string help,
                    Duration least);
  std::string help_text() const;
  std::string config_text() const;

  std::string program_;
  std::string usage_;
  std::string summary_;
  std::string group_;
  std::vector<Option> options_;
  std::vector<std::string>* positional_ = nullptr;
  std::vector<Given>* in_order_ = nullptr;
  std::string positional_name_;
  std::string positional_help_;
  std::string config_file_;
  bool check_only_ = false;
};

}  // namespace fantail
