#include "consumer/line_options.h"

#include <optional>
#include <utility>

#include "common/base/text.h"

namespace fantail {
namespace {

constexpr std::uint64_t kLeastLineBytes = 64;
constexpr std::uint64_t kMostLineBytes = 16 * 1024 * 1024;  // a stream may hold two of them

std::optional<LongLines> long_lines_from(std::string_view text) {
  if (text == "split") return LongLines::kSplit;
  if (text == "truncate") return LongLines::kTruncate;
  if (text == "skip") return LongLines::kSkip;
  return std::nullopt;
}

Result<std::optional<Regex>> compile_given(std::string_view option, const std::string& text) {
  if (text.empty()) return std::optional<Regex>();
  auto regex = Regex::compile(option, text);
  if (!regex) return tl::unexpected(regex.error());
  return std::optional<Regex>(std::move(*regex));
}

}  // namespace

void LineOptions::describe(OptionSet& options) {
  options.group("Lines, of stdout and file:");
  options.choice("encoding", encoding, {"plain", "utf-8", "utf-16", "utf-16le", "utf-16be", "latin-1"},
                 "of the files, to UTF-8; plain: bytes stay as they are; utf-16: by byte order mark or first newline");
  options.choice(
      "crlf", crlf, {"auto", "strip", "keep"},
      "the carriage return before a newline; auto: strip, but keep in raw lines without other flags for lines");
  options.text("max-line", max_line, "BYTES[:split|truncate|skip]",
               "what becomes of a longer line; BYTES bounds records of many lines, too");
  options.choice("multiline", multiline, {"none", "java", "python", "go", "indent"},
                 "join stack traces, or indented lines, with the line that they belong to");
  options.text("multiline-start", multiline_start, "REGEX", "a line that matches begins a record of many lines");
  options.text("multiline-continue", multiline_continue, "REGEX", "a line that matches belongs to the record before");
  options.seconds("multiline-timeout", multiline_timeout, "a record is whole when nothing came for so long", 10ms);
  options.list("include-line", include, "REGEX", "take only records in which one of these is found");
  options.list("exclude-line", exclude, "REGEX", "leave out records in which one of these is found");
}

std::vector<std::string> LineOptions::problems() const {
  std::vector<std::string> out;
  const auto need = [&](const auto& result) {
    if (!result) out.push_back(result.error().context);
  };
  need(cut());
  if (multiline != "none" && !(multiline_start.empty() && multiline_continue.empty())) {
    out.push_back("--multiline '" + multiline +
                  "': has rules of its own; leave it out, or --multiline-start and --multiline-continue");
  }
  // Each on its own, so that all mistakes are told.
  need(compile_given("--multiline-start", multiline_start));
  need(compile_given("--multiline-continue", multiline_continue));
  for (const auto& text : include) need(Regex::compile("--include-line", text));
  for (const auto& text : exclude) need(Regex::compile("--exclude-line", text));
  return out;
}

std::vector<std::string> LineOptions::given() const {
  const LineOptions defaults;
  std::vector<std::string> out;
  const auto note = [&](bool differs, const char* flag) {
    if (differs) out.emplace_back(flag);
  };
  note(encoding != defaults.encoding, "--encoding");
  note(crlf != defaults.crlf, "--crlf");
  note(max_line != defaults.max_line, "--max-line");
  note(multiline != defaults.multiline, "--multiline");
  note(!multiline_start.empty(), "--multiline-start");
  note(!multiline_continue.empty(), "--multiline-continue");
  note(multiline_timeout != defaults.multiline_timeout, "--multiline-timeout");
  note(!include.empty(), "--include-line");
  note(!exclude.empty(), "--exclude-line");
  return out;
}

LineRules LineOptions::rules(bool raw) const {
  LineRules out;
  out.cut = *cut();
  out.multiline = *multiline_rule();
  out.multiline_timeout = multiline_timeout;
  out.filter = *filter();
  out.cut.strip_carriage_return = crlf == "strip" || (crlf == "auto" && !(raw && out.plain()));
  return out;
}

Result<LineCut> LineOptions::cut() const {
  LineCut out;
  const auto colon = max_line.find(':');
  const auto bytes = bytes_from(max_line.substr(0, colon));
  const auto long_lines = long_lines_from(colon == std::string::npos ? "split" : max_line.substr(colon + 1));
  if (!bytes || *bytes < kLeastLineBytes || *bytes > kMostLineBytes || !long_lines) {
    return fail(ErrorCode::kInvalid, "--max-line '" + printable(max_line) +
                                         "': must be a size from 64 to 16M, and what becomes of longer lines: split, "
                                         "truncate or skip, e.g. 16K:truncate");
  }
  out.max_bytes = static_cast<std::size_t>(*bytes);
  out.long_lines = *long_lines;
  out.encoding = *text_encoding_from(encoding);
  return out;
}

Result<std::shared_ptr<const MultilineRule>> LineOptions::multiline_rule() const {
  const auto shared = [](MultilineRule rule) { return std::make_shared<const MultilineRule>(std::move(rule)); };
  if (multiline != "none") {
    auto rule = MultilineRule::preset(multiline);
    if (!rule) return tl::unexpected(rule.error());
    return shared(std::move(*rule));
  }
  auto start = compile_given("--multiline-start", multiline_start);
  if (!start) return tl::unexpected(start.error());
  auto more = compile_given("--multiline-continue", multiline_continue);
  if (!more) return tl::unexpected(more.error());
  if (!*start && !*more) return std::shared_ptr<const MultilineRule>();
  return shared(MultilineRule::custom(std::move(*start), std::move(*more)));
}

Result<std::shared_ptr<const RecordFilter>> LineOptions::filter() const {
  if (include.empty() && exclude.empty()) return std::shared_ptr<const RecordFilter>();
  auto out = std::make_shared<RecordFilter>();
  const auto compile_all = [](std::string_view option, const std::vector<std::string>& texts,
                              std::vector<Regex>& regexes) -> Status {
    for (const auto& text : texts) {
      auto regex = Regex::compile(option, text);
      if (!regex) return tl::unexpected(regex.error());
      regexes.push_back(std::move(*regex));
    }
    return {};
  };
  if (auto ok = compile_all("--include-line", include, out->include); !ok) return tl::unexpected(ok.error());
  if (auto ok = compile_all("--exclude-line", exclude, out->exclude); !ok) return tl::unexpected(ok.error());
  return std::shared_ptr<const RecordFilter>(std::move(out));
}

}  // namespace fantail
