#pragma once

#include <cstdint>
#include <string>

#include "common/base/result.h"

namespace fantail {
class Waiter;
}

namespace fantail::pipeline {

/// Where the jobs of a task come from. A job may be asked for more than once and is the same each time. One thread.
class JobSource {
 public:
  static constexpr std::size_t kMaxJobBytes = 1024 * 1024;

  virtual ~JobSource() = default;

  /// Looks for more; a bounded piece of work. Returns how many are new; none may mean none yet, see complete().
  virtual Result<std::uint64_t> look_on() = 0;
  /// There will be no more.
  virtual bool complete() const = 0;
  /// One of those found, from 1 on.
  virtual Result<std::string> job(std::uint64_t number) = 0;
  /// The same for the same jobs, almost surely another one for others.
  virtual Result<std::string> fingerprint() const = 0;
  /// What becomes readable when look_on() may find more, where something does. Others are asked again once a second.
  virtual void add_to(Waiter& /*waiter*/) const {}
};

}  // namespace fantail::pipeline
