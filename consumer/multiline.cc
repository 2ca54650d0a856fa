#include "consumer/multiline.h"

namespace fantail {
namespace {

using State = MultilineRule::State;
using Verdict = MultilineRule::Verdict;

constexpr State kOrdinary = 0;

constexpr const char* kIndented = R"(^[ \t])";

// Throwable.printStackTrace(), with what loggers, other compilers to the JVM and .NET add to it.
constexpr const char* kJava = R"(^[ \t]+(?:eval )?at |^[ \t]*\.\.\. \d+ (?:more|common frames omitted))"
                              R"(|^[ \t]*(?:Caused by|Suppressed|Wrapped by): |^[ \t]*\[?CIRCULAR REFERENCE)"
                              R"(|^[ \t]*nested exception is:|^[ \t]*--- End of )";

namespace python {
enum Regexes : std::size_t { kTraceback, kGroup, kException, kChain };
constexpr State kFrames = 1, kGroupFrames = 2, kRaised = 3, kBlank = 4, kChained = 5;
constexpr const char* kTexts[] = {
    R"(^\s*Traceback \(most recent call last\):)",
    R"(^\s*\+ Exception Group Traceback \(most recent call last\):)",
    R"(^[^\s():]+(?::|$))",
    R"(^(?:During handling of the above exception, another exception occurred|)"
    R"(The above exception was the direct cause of the following exception):)",
};
}  // namespace python

namespace go {
enum Regexes : std::size_t { kPanic, kAfterPanic, kGoroutine, kFrame };
constexpr State kPanicked = 1, kBlank = 2, kFrames = 3;
constexpr const char* kTexts[] = {
    R"(^(?:panic|fatal error): |^unexpected fault address |http: panic serving )",
    R"(^[ \t]|^fatal error: |^\[(?:signal |recovered))",
    R"(^goroutine \d+ .*\[|^runtime stack:)",
    R"(^[ \t]|^\S+\.\S*\(.*\)$|^panic\(|^created by |^\.\.\.(?:additional|\d+) frames elided)",
};
}  // namespace go

bool starts_indented(std::string_view line) { return line.starts_with(' ') || line.starts_with('\t'); }

template <std::size_t N>
std::vector<Regex> compile_all(const char* const (&texts)[N]) {
  std::vector<Regex> out;
  for (const char* text : texts) out.push_back(*Regex::compile("multi-line preset", text));
  return out;
}

}  // namespace

Result<MultilineRule> MultilineRule::preset(std::string_view name) {
  if (name == "java") return MultilineRule(Kind::kContinue, compile_all({kJava}));
  if (name == "indent") return MultilineRule(Kind::kContinue, compile_all({kIndented}));
  if (name == "python") return MultilineRule(Kind::kPython, compile_all(python::kTexts));
  if (name == "go") return MultilineRule(Kind::kGo, compile_all(go::kTexts));
  return fail(ErrorCode::kInvalid, "--multiline '" + std::string(name) + "': must be none, java, python, go or indent");
}

MultilineRule MultilineRule::custom(std::optional<Regex> start, std::optional<Regex> more) {
  if (!more) return MultilineRule(Kind::kStart, {*start});
  if (!start) return MultilineRule(Kind::kContinue, {*more});
  return MultilineRule(Kind::kBoth, {*start, *more});
}

State MultilineRule::begin(std::string_view line) const {
  switch (kind_) {
    case Kind::kPython: return begin_python(line);
    case Kind::kGo: return begin_go(line);
    case Kind::kBoth: return is(0, line) ? 1 : kOrdinary;
    case Kind::kContinue:
    case Kind::kStart: break;
  }
  return kOrdinary;
}

Verdict MultilineRule::next(State& state, std::string_view line) const {
  const auto continues = [](bool so) { return so ? Verdict::kContinues : Verdict::kBegins; };
  switch (kind_) {
    case Kind::kContinue: return continues(is(0, line));
    case Kind::kStart: return continues(!is(0, line));
    case Kind::kBoth: return continues(state != kOrdinary && !is(0, line) && is(1, line));
    case Kind::kPython: return next_python(state, line);
    case Kind::kGo: return next_go(state, line);
  }
  return Verdict::kBegins;
}

State MultilineRule::begin_python(std::string_view line) const {
  if (is(python::kTraceback, line)) return python::kFrames;
  return is(python::kGroup, line) ? python::kGroupFrames : kOrdinary;
}

/// A traceback ends with the line that names the exception; another one may follow that it led to.
Verdict MultilineRule::next_python(State& state, std::string_view line) const {
  switch (state) {
    case python::kFrames:
      if (starts_indented(line)) return Verdict::kContinues;
      if (!is(python::kException, line)) return Verdict::kBegins;
      state = python::kRaised;
      return Verdict::kContinues;
    case python::kGroupFrames: return starts_indented(line) ? Verdict::kContinues : Verdict::kBegins;
    case python::kRaised:
      if (!line.empty()) return Verdict::kBegins;
      state = python::kBlank;
      return Verdict::kUndecided;
    case python::kBlank:
      if (!is(python::kChain, line)) return Verdict::kBegins;
      state = python::kChained;
      return Verdict::kContinues;
    case python::kChained:
      if (line.empty()) return Verdict::kContinues;
      state = begin_python(line);
      return state == kOrdinary ? Verdict::kBegins : Verdict::kContinues;
    default: return Verdict::kBegins;
  }
}

State MultilineRule::begin_go(std::string_view line) const {
  if (is(go::kPanic, line)) return go::kPanicked;
  return is(go::kGoroutine, line) ? go::kFrames : kOrdinary;
}

/// The panic, and the stack of each goroutine behind a blank line.
Verdict MultilineRule::next_go(State& state, std::string_view line) const {
  if (state == kOrdinary) return Verdict::kBegins;
  if (is(go::kGoroutine, line)) {
    state = go::kFrames;
    return Verdict::kContinues;
  }
  if (state == go::kBlank) return Verdict::kBegins;
  if (line.empty()) {
    state = go::kBlank;
    return Verdict::kUndecided;
  }
  return is(state == go::kPanicked ? go::kAfterPanic : go::kFrame, line) ? Verdict::kContinues : Verdict::kBegins;
}

}  // namespace fantail
