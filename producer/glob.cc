#include "producer/glob.h"

#include <re2/re2.h>

#include <algorithm>
#include <filesystem>
#include <optional>

namespace fantail {
namespace {

constexpr std::size_t kMaxAlternatives = 1024;

using Parts = std::vector<std::string_view>;

Parts split(std::string_view path) {
  Parts parts;
  while (!path.empty()) {
    const auto slash = path.find('/');
    const auto part = path.substr(0, slash);
    if (!part.empty()) parts.push_back(part);
    if (slash == std::string_view::npos) break;
    path.remove_prefix(slash + 1);
  }
  return parts;
}

/// One path component: literal text, a pattern, or `**`.
struct Component {
  enum class Kind { kLiteral, kPattern, kAnyDepth } kind = Kind::kLiteral;
  std::string text;
  std::unique_ptr<RE2> pattern;
  bool dot_explicit = false;

  bool matches(std::string_view name) const {
    if (kind == Kind::kLiteral) return name == text;
    if (name.starts_with('.') && !dot_explicit) return false;
    return kind == Kind::kAnyDepth || RE2::FullMatch(re2::StringPiece(name.data(), name.size()), *pattern);
  }
};

/// The regular expression of one component without braces; nothing when a bracket is not closed.
std::optional<std::string> to_regex(std::string_view glob) {
  std::string out;
  for (std::size_t i = 0; i < glob.size(); ++i) {
    const char c = glob[i];
    if (c == '*') {
      out += "[^/]*";
    } else if (c == '?') {
      out += "[^/]";
    } else if (c == '\\' && i + 1 < glob.size()) {
      out += RE2::QuoteMeta(std::string(1, glob[++i]));
    } else if (c == '[') {
      std::size_t end = i + 1;
      if (end < glob.size() && (glob[end] == '!' || glob[end] == '^')) ++end;
      if (end < glob.size() && glob[end] == ']') ++end;
      while (end < glob.size() && glob[end] != ']') ++end;
      if (end >= glob.size()) return std::nullopt;
      std::string set(glob.substr(i + 1, end - i - 1));
      if (set.starts_with('!')) set[0] = '^';
      out += "[";
      for (std::size_t k = 0; k < set.size(); ++k) {
        if (set[k] == '\\' || set[k] == '[' || (set[k] == '^' && k > 0)) out += '\\';
        out += set[k];
      }
      out += "]";
      i = end;
    } else {
      out += RE2::QuoteMeta(std::string(1, c));
    }
  }
  return out;
}

/// a{b,c}d → abd, acd; nested braces too. False when there are too many or a brace is not closed.
bool expand_braces(const std::string& text, std::vector<std::string>& out) {
  std::size_t open = std::string::npos;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '{') {
      open = i;
      break;
    }
  }
  if (open == std::string::npos) {
    out.push_back(text);
    return out.size() <= kMaxAlternatives;
  }
  std::vector<std::string> choices(1);
  int depth = 1;
  std::size_t i = open + 1;
  for (; i < text.size(); ++i) {
    if (text[i] == '{') ++depth;
    if (text[i] == '}' && --depth == 0) break;
    if (text[i] == ',' && depth == 1) {
      choices.emplace_back();
    } else {
      choices.back() += text[i];
    }
  }
  if (depth != 0) return false;
  for (const auto& choice : choices) {
    if (!expand_braces(text.substr(0, open) + choice + text.substr(i + 1), out)) return false;
  }
  return true;
}

struct Alternative {
  std::vector<Component> components;
  std::string root = "/";

  /// The components that may come next behind these parts; components.size() is the end of the pattern.
  std::vector<bool> behind(const Parts& parts) const {
    std::vector<bool> now(components.size() + 1);
    std::vector<bool> next(components.size() + 1);
    const auto may_come = [this](std::vector<bool>& at, std::size_t c) {
      at[c] = true;
      // `**` may be no directory at all; at the end it takes the file itself.
      while (c + 1 < components.size() && components[c].kind == Component::Kind::kAnyDepth) at[++c] = true;
    };
    may_come(now, 0);
    for (const std::string_view part : parts) {
      next.assign(next.size(), false);
      for (std::size_t c = 0; c < components.size(); ++c) {
        if (!now[c] || !components[c].matches(part)) continue;
        const bool any_depth = components[c].kind == Component::Kind::kAnyDepth;
        if (any_depth) may_come(next, c);
        if (!any_depth || c + 1 == components.size()) may_come(next, c + 1);
      }
      now.swap(next);
    }
    return now;
  }
};

Result<Alternative> to_alternative(const std::string& text, std::string_view original) {
  Alternative out;
  bool literal = true;
  for (const auto part : split(text)) {
    Component component;
    component.text = part;
    component.dot_explicit = part.starts_with('.');
    if (part == "**") {
      component.kind = Component::Kind::kAnyDepth;
    } else if (part.find_first_of("*?[\\") != std::string_view::npos) {
      component.kind = Component::Kind::kPattern;
      const auto regex = to_regex(part);
      if (!regex)
        return fail(ErrorCode::kInvalid,
                    "pattern '" + std::string(original) + "': '[' without ']'; write [[] for the bracket itself");
      RE2::Options options;
      options.set_encoding(RE2::Options::EncodingLatin1);  // file names are bytes
      options.set_log_errors(false);
      options.set_dot_nl(true);
      component.pattern = std::make_unique<RE2>(*regex, options);
      if (!component.pattern->ok()) {
        return fail(ErrorCode::kInvalid, "pattern '" + std::string(original) + "': " + component.pattern->error());
      }
    }
    literal = literal && component.kind == Component::Kind::kLiteral;
    if (literal) out.root += (out.root == "/" ? "" : "/") + component.text;
    out.components.push_back(std::move(component));
  }
  return out;
}

}  // namespace

struct Glob::Impl {
  std::string text;
  std::vector<Alternative> alternatives;
  std::vector<std::string> roots;
};

Glob::Glob(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Glob::Glob(Glob&&) noexcept = default;
Glob& Glob::operator=(Glob&&) noexcept = default;
Glob::~Glob() = default;

Result<Glob> Glob::parse(std::string_view pattern) {
  if (pattern.empty())
    return fail(ErrorCode::kInvalid, "pattern '': must not be empty; give a path such as /var/log/*.log");
  std::error_code ec;
  auto absolute = std::filesystem::absolute(std::filesystem::path(pattern), ec).lexically_normal();
  if (ec) return fail(ErrorCode::kInvalid, "pattern '" + std::string(pattern) + "': " + ec.message());
  if (std::filesystem::is_directory(absolute, ec)) absolute /= "**";
  auto impl = std::make_unique<Impl>();
  impl->text = pattern;
  std::vector<std::string> expanded;
  if (!expand_braces(absolute.string(), expanded)) {
    const bool too_many = expanded.size() > kMaxAlternatives;
    return fail(ErrorCode::kInvalid, "pattern '" + std::string(pattern) + "': " +
                                         (too_many ? "braces give more than " + std::to_string(kMaxAlternatives) +
                                                         " alternatives; use *, or several patterns"
                                                   : std::string("'{' without '}'; write \\{ for the brace itself")));
  }
  const auto add = [&](const std::string& text) -> Result<bool> {
    auto alternative = to_alternative(text, pattern);
    if (!alternative) return tl::unexpected(alternative.error());
    const bool literal = split(alternative->root).size() == alternative->components.size();
    // The last component names files, so looking starts at its directory at the latest.
    std::string root = alternative->root;
    if (literal) root = std::filesystem::path(root).parent_path().string();
    if (std::find(impl->roots.begin(), impl->roots.end(), root) == impl->roots.end()) impl->roots.push_back(root);
    impl->alternatives.push_back(std::move(*alternative));
    return literal;
  };
  for (const auto& text : expanded) {
    const auto literal = add(text);
    if (!literal) return tl::unexpected(literal.error());
    // It may be a directory by the time that it is there.
    if (!*literal) continue;
    if (const auto below = add(text + "/**"); !below) return tl::unexpected(below.error());
  }
  return Glob(std::move(impl));
}

bool Glob::matches(std::string_view path) const {
  const Parts parts = split(path);
  return std::any_of(impl_->alternatives.begin(), impl_->alternatives.end(),
                     [&](const Alternative& a) -> bool { return a.behind(parts).back(); });
}

std::vector<Glob::Place> Glob::places_of(std::string_view directory) const {
  const Parts parts = split(directory);
  std::vector<Place> out;
  for (std::size_t a = 0; a < impl_->alternatives.size(); ++a) {
    const std::vector<bool> behind = impl_->alternatives[a].behind(parts);
    for (std::size_t c = 0; c + 1 < behind.size(); ++c) {
      if (behind[c]) out.emplace_back(a, c);
    }
  }
  return out;
}

const std::vector<std::string>& Glob::roots() const { return impl_->roots; }
const std::string& Glob::text() const { return impl_->text; }

}  // namespace fantail
