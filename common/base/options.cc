#include "common/base/options.h"

#include <algorithm>
#include <boost/program_options/cmdline.hpp>
#include <boost/program_options/options_description.hpp>
#include <boost/program_options/parsers.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <boost/program_options/variables_map.hpp>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>

#include "common/base/text.h"
#include "common/base/version.h"

namespace fantail {
namespace {

namespace po = boost::program_options;
using Texts = std::vector<std::string>;

std::string mistake(const std::string& name, const std::string& value, const std::string& reason) {
  return "--" + name + " '" + value + "': " + reason;
}

std::string trimmed(const std::string& text) {
  constexpr const char* kBlank = " \t\r";
  const auto begin = text.find_first_not_of(kBlank);
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

std::optional<double> to_number(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::string shortest(double value) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value);
  return error == std::errc{} ? std::string(text, end) : std::to_string(value);
}

}  // namespace

std::string printable(std::string_view text) {
  static constexpr const char* kHex = "0123456789abcdef";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7F) {
      out += c;
    } else {
      out += std::string("\\x") + kHex[byte >> 4] + kHex[byte & 15];
    }
  }
  return out;
}

namespace {

/// "-5" where an argument may be is one, and no option.
std::vector<po::option> negative_number(std::vector<std::string>& arguments) {
  const std::string& next = arguments.front();
  const bool number = next.size() > 1 && next[0] == '-' &&
                      next.find_first_not_of("0123456789.eE+-", 1) == std::string::npos &&
                      (std::isdigit(static_cast<unsigned char>(next[1])) != 0 || next[1] == '.');
  if (!number) return {};
  po::option out;
  out.position_key = 0;
  out.value = out.original_tokens = {next};
  arguments.erase(arguments.begin());
  return {out};
}

}  // namespace

OptionSet::OptionSet(std::string program, std::string usage, std::string summary)
    : program_(std::move(program)), usage_(std::move(usage)), summary_(std::move(summary)) {}

void OptionSet::group(std::string title) { group_ = std::move(title); }

void OptionSet::add(Option option) {
  option.group = group_;
  options_.push_back(std::move(option));
}

void OptionSet::text(std::string name, std::string& target, std::string argument, std::string help) {
  const auto set = [&target, name](const Texts& v) -> std::optional<std::string> {
    if (v.back().empty()) return mistake(name, "", "must not be empty; leave it out");
    target = v.back();
    return std::nullopt;
  };
  add({name, std::move(argument), std::move(help), {}, false, set, [&target] {
         return target.empty() ? Texts{} : Texts{target};
       }});
}

void OptionSet::list(std::string name, std::vector<std::string>& target, std::string argument, std::string help,
                     bool repeatable) {
  add({std::move(name),
       std::move(argument),
       std::move(help),
       {},
       repeatable,
       [&target](const Texts& v) {
         target = v;
         return std::nullopt;
       },
       [&target] { return target; }});
}

void OptionSet::flag(std::string name, bool& target, std::string help) {
  const auto set = [&target, name](const Texts& v) -> std::optional<std::string> {
    if (v.back() != "true" && v.back() != "false") return mistake(name, v.back(), "must be true or false");
    target = v.back() == "true";
    return std::nullopt;
  };
  add({std::move(name), {}, std::move(help), {}, false, set, [&target] { return target ? Texts{"true"} : Texts{}; }});
}

void OptionSet::add_number(std::string name, std::function<std::uint64_t()> get, std::function<void(std::uint64_t)> set,
                           std::uint64_t least, std::uint64_t most, std::string argument, std::string help) {
  const auto assign = [=](const Texts& v) -> std::optional<std::string> {
    const std::string& text = v.back();
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < least || value > most) {
      return mistake(name, text,
                     "must be a whole number from " + std::to_string(least) + " to " + std::to_string(most));
    }
    set(value);
    return std::nullopt;
  };
  add({name, std::move(argument), std::move(help), {}, false, assign, [=] { return Texts{std::to_string(get())}; }});
}

void OptionSet::bytes(std::string name, std::uint64_t& target, std::uint64_t least, std::string help) {
  const auto set = [&target, name, least](const Texts& v) -> std::optional<std::string> {
    const auto value = bytes_from(v.back());
    if (!value || *value < least) {
      return mistake(name, v.back(),
                     "must be a size such as 64K, 16MiB or 1G, at least " + std::to_string(least) + " bytes");
    }
    target = *value;
    return std::nullopt;
  };
  add({name, "BYTES", std::move(help), {}, false, set, [&target] { return Texts{std::to_string(target)}; }});
}

void OptionSet::add_duration(std::string name, Duration& target, double unit_seconds, std::string unit,
                             std::string help, Duration least) {
  const double least_units = std::chrono::duration<double>(least).count() / unit_seconds;
  if (least_units > 0) help += ", at least " + shortest(least_units);
  const auto set = [&target, name, unit_seconds, unit, least_units](const Texts& v) -> std::optional<std::string> {
    const auto value = to_number(v.back());
    constexpr double kTenYears = 10.0 * 366 * 86'400;
    if (!value || *value < 0 || *value * unit_seconds > kTenYears) {
      return mistake(name, v.back(),
                     "must be a number of " + unit + ", " + shortest(least_units) + " or more and at most ten years");
    }
    if (*value < least_units) {
      return mistake(name, v.back(),
                     "would keep a processor busy; use " + shortest(least_units) + " " + unit + " or more");
    }
    target = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(*value * unit_seconds));
    return std::nullopt;
  };
  const auto get = [&target, unit_seconds] {
    return Texts{shortest(std::chrono::duration<double>(target).count() / unit_seconds)};
  };
  add({name, unit_seconds < 1 ? "MS" : "S", std::move(help), {}, false, set, get});
}

void OptionSet::seconds(std::string name, Duration& target, std::string help, Duration least) {
  add_duration(std::move(name), target, 1, "seconds", std::move(help), least);
}
void OptionSet::milliseconds(std::string name, Duration& target, std::string help) {
  add_duration(std::move(name), target, 1e-3, "milliseconds", std::move(help), {});
}

void OptionSet::log_level(log::Level& target) {
  static constexpr const char* kNames[] = {"debug", "info", "warn", "error", "off"};
  const auto set = [&target](const Texts& v) -> std::optional<std::string> {
    const auto level = log::level_from(v.back());
    if (!level) return mistake("log-level", v.back(), "must be debug, info, warn, error or off");
    target = *level;
    return std::nullopt;
  };
  add({"log-level", "LEVEL", "debug, info, warn, error or off", {}, false, set, [&target] {
         return Texts{kNames[static_cast<int>(target)]};
       }});
}

void OptionSet::choice(std::string name, std::string& target, std::vector<std::string> allowed, std::string help) {
  const auto set = [&target, name, allowed](const Texts& v) -> std::optional<std::string> {
    for (const auto& a : allowed) {
      if (a == v.back()) {
        target = a;
        return std::nullopt;
      }
    }
    std::string names;
    for (const auto& a : allowed) names += (names.empty() ? "" : " or ") + a;
    return mistake(name, v.back(), "must be " + names);
  };
  std::string argument;
  for (const auto& a : allowed) argument += (argument.empty() ? "" : "|") + a;
  add({name, argument, std::move(help), {}, false, set, [&target] {
         return target.empty() ? Texts{} : Texts{target};
       }});
}

void OptionSet::positional(std::vector<std::string>& target, std::string name, std::string help) {
  positional_ = &target;
  positional_name_ = std::move(name);
  positional_help_ = std::move(help);
}

std::string OptionSet::help_text() const {
  std::string out = "usage: " + usage_ + "\n\n" + summary_ + "\n";
  std::string group;
  constexpr std::size_t kColumn = 30;
  const auto row = [&](const std::string& left, const std::string& right) {
    std::string line = "  " + left;
    if (line.size() >= kColumn) {
      out += line + "\n";
      line.clear();
    }
    line.resize(kColumn, ' ');
    out += line + right + "\n";
  };
  if (positional_ != nullptr) {
    out += "\n";
    row(positional_name_, positional_help_);
  }
  for (const Option& o : options_) {
    if (o.group != group) {
      group = o.group;
      out += "\n" + group + "\n";
    }
    const Texts defaults = o.get();
    std::string right = o.help;
    if (!o.argument.empty() && defaults.size() == 1) right += " (default " + defaults[0] + ")";
    if (o.many) right += "; repeatable";
    row("--" + o.name + (o.argument.empty() ? "" : " " + o.argument), right);
  }
  out += "\nGeneral\n";
  row("--config FILE", "INI file with the same names; flags win");
  row("--check", "check flags, configuration, patterns, addresses and interfaces, then exit");
  row("--print-config", "print the values in force as a config file, then exit");
  row("--version", "print the version, then exit");
  row("--help", "print this, then exit");
  return out;
}

std::string OptionSet::config_text() const {
  std::string out;
  const auto lines = [&](const std::string& name, const Texts& values) {
    for (const auto& v : values) out += name + " = " + v + "\n";
  };
  const bool ordered = in_order_ != nullptr && !in_order_->empty();
  for (const Option& o : options_) {
    if (!ordered || !o.many) lines(o.name, o.get());
  }
  if (!ordered) {
    if (positional_ != nullptr) lines("file", *positional_);
    return out;
  }
  for (const Given& given : *in_order_) {
    const bool many =
        std::any_of(options_.begin(), options_.end(), [&](const Option& o) { return o.many && o.name == given.name; });
    if (many || given.name == "file") lines(given.name, {given.value});
  }
  return out;
}

OptionSet::Outcome OptionSet::parse(int argc, const char* const* argv,
                                    const std::function<std::vector<std::string>()>& check) {
  Texts problems;
  bool help = false;
  bool version = false;
  bool print_config = false;

  po::options_description known;
  const auto accept = [&](const std::string& name, bool takes_value) {
    if (takes_value) {
      known.add_options()(name.c_str(), po::value<Texts>()->composing(), "");
    } else {
      known.add_options()(name.c_str(), "");
    }
  };
  for (const Option& o : options_) accept(o.name, !o.argument.empty());
  accept("config", true);
  for (const char* name : {"help", "version", "check", "print-config"}) accept(name, false);

  std::map<std::string, Texts> values;
  Texts files;
  std::vector<Given> given_by_file;
  std::vector<Given> given_by_flags;
  try {
    const auto style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    const auto parsed = po::command_line_parser(argc, argv)
                            .options(known)
                            .style(style)
                            .extra_style_parser(negative_number)
                            .allow_unregistered()
                            .run();
    for (const auto& o : parsed.options) {
      if (o.unregistered) {
        problems.push_back("unknown option '" + o.original_tokens.front() + "': --help lists those that exist");
      } else if (o.position_key >= 0) {
        files.insert(files.end(), o.value.begin(), o.value.end());
        for (const auto& file : o.value) given_by_flags.push_back({"file", file});
      } else {
        auto& target = values[o.string_key];
        target.insert(target.end(), o.value.begin(), o.value.end());
        if (o.value.empty()) target.emplace_back("true");
        given_by_flags.push_back({o.string_key, target.back()});
      }
    }
  } catch (const po::error& e) {
    problems.emplace_back(std::string(e.what()) + ": --help shows what each option takes");
  }
  help = values.contains("help");
  version = values.contains("version");
  print_config = values.contains("print-config");
  check_only_ = values.contains("check");

  if (help) {
    std::fputs(help_text().c_str(), stdout);
    return Outcome::kExitOk;
  }
  if (version) {
    std::printf("%s %s\n", program_.c_str(), kVersion);
    return Outcome::kExitOk;
  }

  if (const auto config = values.find("config"); config != values.end()) {
    config_file_ = config->second.back();
    std::ifstream in(config_file_);
    std::map<std::string, Texts> from_file;
    if (!in || std::filesystem::is_directory(config_file_)) {
      const std::string why = in ? "it is a directory" : std::generic_category().message(errno);
      problems.push_back(mistake("config", config_file_, "cannot be read (" + why + "); give the path of an INI file"));
    } else {
      const auto takes = [&](const std::string& key) {
        return key == "file" ||
               std::any_of(options_.begin(), options_.end(), [&](const Option& o) { return o.name == key; });
      };
      // Boost's own reader cuts values at every '#', which is a good character in a path or a format.
      std::size_t number = 0;
      for (std::string line; std::getline(in, line);) {
        if (++number == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);  // a byte order mark
        const std::string text = trimmed(line);
        if (text.empty() || text.front() == '#' || text.front() == ';') continue;
        const auto equals = text.find('=');
        const std::string key = trimmed(text.substr(0, equals));
        if (equals == std::string::npos) {
          problems.push_back("'" + text + "' in line " + std::to_string(number) + " of " + config_file_ +
                             " is neither a comment nor KEY = VALUE");
        } else if (!takes(key)) {
          problems.push_back("unknown key '" + key + "' in " + config_file_ +
                             ": keys are the long options without dashes");
        } else {
          from_file[key].push_back(trimmed(text.substr(equals + 1)));
          if (!values.contains(key)) given_by_file.push_back({key, from_file[key].back()});
        }
      }
    }
    if (!files.empty()) std::erase_if(given_by_file, [](const Given& given) { return given.name == "file"; });
    if (files.empty() && from_file.contains("file")) files = from_file["file"];
    for (auto& [name, list] : from_file) values.try_emplace(name, list);
  }

  if (in_order_ != nullptr) {
    *in_order_ = std::move(given_by_file);
    in_order_->insert(in_order_->end(), given_by_flags.begin(), given_by_flags.end());
  }
  for (const Option& o : options_) {
    const auto given = values.find(o.name);
    if (given == values.end()) continue;
    if (auto problem = o.set(given->second)) problems.push_back(*problem);
  }
  if (positional_ != nullptr) {
    *positional_ = files;
  } else {
    for (const auto& file : files)
      problems.push_back("unexpected argument '" + file + "': " + program_ + " takes options only");
  }
  for (auto& problem : check()) problems.push_back(std::move(problem));
  if (!problems.empty()) {
    for (const auto& problem : problems) std::fprintf(stderr, "%s: %s\n", program_.c_str(), problem.c_str());
    return Outcome::kUsageError;
  }
  if (print_config) {
    std::fputs(config_text().c_str(), stdout);
    return Outcome::kExitOk;
  }
  return Outcome::kRun;
}

}  // namespace fantail
