#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "consumer/regex.h"

namespace fantail {

/// Which lines are one record. What it says of a line depends on the lines of the record that is open and on nothing
/// before, so whoever begins at the start of any record finds the same ones.
class MultilineRule {
 public:
  /// `name`: java, python, go or indent.
  static Result<MultilineRule> preset(std::string_view name);
  /// A line with `start` in it begins a record, one with `more` in it belongs to the record before. Only `start`: so do
  /// all others. Only `more`: all others begin one. Both: after a line with `start` those with `more` belong to it, and
  /// each other line is a record. One of them must be given.
  static MultilineRule custom(std::optional<Regex> start, std::optional<Regex> more);

  /// What the lines of the open record lead to expect; each kind of rule has its own.
  using State = std::uint8_t;
  enum class Verdict : std::uint8_t {
    kBegins,     ///< it begins the next record
    kContinues,  ///< it belongs to the open one, and so does a line before it that was undecided
    kUndecided,  ///< it does if the next line does; never said twice in a row
  };
  /// The state behind the first line of a record.
  State begin(std::string_view line) const;
  /// What `line` is, behind `state`, which it changes.
  Verdict next(State& state, std::string_view line) const;

 private:
  enum class Kind : std::uint8_t { kContinue, kStart, kBoth, kPython, kGo };
  explicit MultilineRule(Kind kind, std::vector<Regex> regexes) : kind_(kind), regexes_(std::move(regexes)) {}
  State begin_python(std::string_view line) const;
  Verdict next_python(State& state, std::string_view line) const;
  State begin_go(std::string_view line) const;
  Verdict next_go(State& state, std::string_view line) const;
  bool is(std::size_t which, std::string_view line) const { return regexes_[which].found_in(line); }

  Kind kind_;
  std::vector<Regex> regexes_;  ///< by kind
};

}  // namespace fantail
