#include "common/base/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <mutex>
#include <utility>

namespace fantail::log {
namespace {

/// stderr, with room for one status line at the bottom of a terminal.
class StderrSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  void set_status(std::string text) {
    const std::lock_guard lock(mutex_);
    erase_status();
    status_ = std::move(text);
    draw_status();
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    erase_status();
    std::fwrite(line.data(), 1, line.size(), stderr);
    draw_status();
  }
  void flush_() override { std::fflush(stderr); }

 private:
  void erase_status() {
    if (!status_.empty()) std::fputs("\r\033[K", stderr);
  }
  void draw_status() {
    // A line that is wrapped could not be erased any more.
    winsize size{};
    const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    const std::size_t room = known ? size.ws_col - 1U : status_.size();
    std::fwrite(status_.data(), 1, std::min(room, status_.size()), stderr);
    std::fflush(stderr);
  }
  std::string status_;
};

struct Logging {
  std::shared_ptr<StderrSink> sink = std::make_shared<StderrSink>();
  spdlog::logger logger{"fantail", sink};
  Logging() {
    auto formatter =
        std::make_unique<spdlog::pattern_formatter>("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);
    logger.set_formatter(std::move(formatter));
    logger.flush_on(spdlog::level::trace);
  }
};

Logging& logging() {
  static Logging instance;
  return instance;
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kDebug: return spdlog::level::debug;
    case Level::kInfo: return spdlog::level::info;
    case Level::kWarn: return spdlog::level::warn;
    case Level::kError: return spdlog::level::err;
    case Level::kOff: return spdlog::level::off;
  }
  return spdlog::level::info;
}

/// Bare where that is unambiguous, else quoted, so that one event stays one line and nothing from outside forges a
/// field.
void append_value(std::string& line, std::string_view value) {
  const bool bare = !value.empty() && value.find_first_of(" \"\\=") == std::string_view::npos &&
                    std::none_of(value.begin(), value.end(),
                                 [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
  if (bare) {
    line += value;
    return;
  }
  line += '"';
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      line += '\\';
      line += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      line += escaped;
    } else {
      line += c;
    }
  }
  line += '"';
}

void write(spdlog::level::level_enum level, std::string_view event, Fields fields) {
  auto& logger = logging().logger;
  if (!logger.should_log(level)) return;
  std::string line(event);
  for (const Field& field : fields) {
    line += ' ';
    line += field.key;
    line += '=';
    append_value(line, field.value);
  }
  logger.log(level, spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace

std::optional<Level> level_from(std::string_view name) {
  if (name == "debug") return Level::kDebug;
  if (name == "info") return Level::kInfo;
  if (name == "warn") return Level::kWarn;
  if (name == "error") return Level::kError;
  if (name == "off") return Level::kOff;
  return std::nullopt;
}

void set_up(Level level) { logging().logger.set_level(to_spdlog(level)); }

void debug(std::string_view event, Fields fields) { write(spdlog::level::debug, event, fields); }
void info(std::string_view event, Fields fields) { write(spdlog::level::info, event, fields); }
void warn(std::string_view event, Fields fields) { write(spdlog::level::warn, event, fields); }
void error(std::string_view event, Fields fields) { write(spdlog::level::err, event, fields); }

void say(std::string_view sentence) {
  std::fprintf(stderr, "%.*s\n", static_cast<int>(sentence.size()), sentence.data());
}

void set_status_line(std::string text) { logging().sink->set_status(std::move(text)); }

std::optional<std::uint64_t> Repeated::occurred(MonoTime now) {
  ++since_;
  if (last_logged_ && now - *last_logged_ < interval_) return std::nullopt;
  last_logged_ = now;
  return std::exchange(since_, 0);
}

}  // namespace fantail::log
