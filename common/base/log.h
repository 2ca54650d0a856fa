#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/base/types.h"

/// Events for people, on stderr, one line each: time, level, the event in words, then key=value pairs. The same key
/// names everywhere: stream, offset, bytes, path, topic, node, peer, endpoint, error. Rates are counters, never lines.
namespace fantail::log {

enum class Level : std::uint8_t { kDebug, kInfo, kWarn, kError, kOff };

/// "debug", "info", "warn", "error" or "off".
std::optional<Level> level_from(std::string_view name);

/// Sets up the process-wide logger. Call once, before threads are started.
void set_up(Level level);

struct Field {
  std::string_view key;
  std::string value;

  Field(std::string_view k, std::string_view v) : key(k), value(v) {}
  Field(std::string_view k, const char* v) : key(k), value(v) {}
  Field(std::string_view k, const std::string& v) : key(k), value(v) {}
  template <std::integral T>
  Field(std::string_view k, T v) : key(k), value(std::to_string(v)) {}
  Field(std::string_view k, FileOffset v) : key(k), value(std::to_string(v.raw)) {}
  template <class Tag>
  Field(std::string_view k, const Id128<Tag>& v) : key(k), value(to_string(v)) {}
  Field(std::string_view k, const Error& v) : key(k), value(v.context) {}
};
using Fields = std::initializer_list<Field>;

void debug(std::string_view event, Fields fields = {});
void info(std::string_view event, Fields fields = {});
void warn(std::string_view event, Fields fields = {});
void error(std::string_view event, Fields fields = {});

/// A line of text instead of an event, for answers to the person at the terminal; always shown.
void say(std::string_view sentence);

/// A status line that is redrawn in place on a terminal; an empty text removes it. Events go above it.
void set_status_line(std::string text);

/// Keeps a fault that repeats from flooding the log: at most one event per interval, which tells how many there were.
class Repeated {
 public:
  explicit Repeated(Duration interval = 10s) : interval_(interval) {}
  /// Counts one occurrence. A number means "log now"; it is how many occurred since the last one logged.
  std::optional<std::uint64_t> occurred(MonoTime now);

 private:
  Duration interval_;
  std::optional<MonoTime> last_logged_;
  std::uint64_t since_ = 0;
};

}  // namespace fantail::log
