#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "common/base/options.h"
#include "state/client.h"
#include "state/commands.h"

namespace fantail::state {

/// One command that makes one request: its flags and arguments, a client, and how to print the answer.
class Asking {
  std::string name_;

 public:
  /// Takes from `least` to `most` arguments.
  Asking(const Command& command, std::size_t least, std::size_t most);

  OptionSet options;  ///< for flags of the command's own, before parse()
  ClientOptions common;
  std::vector<std::string> arguments;
  std::unique_ptr<StateClient> client;  ///< after parse()

  /// Nothing: go on. Else the exit code. `check`: more problems.
  std::optional<int> parse(int argc, const char* const* argv,
                           const std::function<std::vector<std::string>()>& check = {});
  /// Prints the member `member` of the answer, or with --json all of it; `bare`: a text without quotes. Returns the
  /// exit code.
  int show(const StateClient::Answer<nlohmann::json>& answer, const char* member = nullptr, bool bare = false) const;
  /// An argument that must be JSON; problems go to `problems`.
  static std::optional<nlohmann::json> json_argument(const std::string& text, std::vector<std::string>& problems);

 private:
  std::size_t least_;
  std::size_t most_;
};

}  // namespace fantail::state
