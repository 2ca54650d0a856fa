#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/result.h"

namespace fantail {

/// A shell-like path pattern over absolute paths: `*`, `?`, `[a-z]`, `[!a]`, `{a,b}` and `**` for any number of
/// directories. As in a shell, wildcards do not match a leading dot. A pattern that names a directory takes every file
/// below it, whether the directory is there already or comes later.
class Glob {
 public:
  /// Makes `pattern` absolute against the working directory. kInvalid names what is wrong with it.
  static Result<Glob> parse(std::string_view pattern);
  Glob(Glob&&) noexcept;
  Glob& operator=(Glob&&) noexcept;
  ~Glob();

  bool matches(std::string_view path) const;
  /// What has to match next below a directory.
  using Place = std::pair<std::size_t, std::size_t>;
  /// Where in the pattern `directory` stands: the same files match below directories with the same places, none if
  /// there are none.
  std::vector<Place> places_of(std::string_view directory) const;
  /// The directories to start looking in: what precedes the first wildcard of each alternative.
  const std::vector<std::string>& roots() const;
  const std::string& text() const;

 private:
  struct Impl;
  explicit Glob(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fantail
