#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace fantail {

/// The child process in which epgm sockets live, because libzmq can be made to abort by a single empty UDP datagram. It
/// is started again with back-off when it ends, ends with its parent, and leaves signals of the terminal to it.
class RelayProcess {
 public:
  /// `arguments` follow the program's name. Does not start it yet: turn() does.
  explicit RelayProcess(std::vector<std::string> arguments);
  ~RelayProcess();  ///< kills it
  RelayProcess(const RelayProcess&) = delete;
  RelayProcess& operator=(const RelayProcess&) = delete;

  /// Starts it when it is due, notices its end. Returns whether anything happened.
  bool turn(MonoTime now);
  /// Kills it; turn() starts another at once. For one that has stopped working without ending.
  void replace(MonoTime now, std::string_view why);

  MonoTime due(MonoTime now) const;
  int fd() const { return pidfd_.get(); }  ///< readable when it has ended; -1 while there is none
  pid_t pid() const { return pid_; }
  MonoTime started() const { return started_; }
  std::uint64_t restarts() const { return restarts_; }

 private:
  Status start(MonoTime now);
  void reap();

  std::vector<std::string> arguments_;
  UniqueFd pidfd_;
  pid_t pid_ = -1;
  MonoTime started_{};
  MonoTime next_start_{};
  Duration back_off_{};
  std::uint64_t restarts_ = 0;
  log::Repeated end_log_;
};

/// Where the relay program is: $FANTAIL_RELAY, beside this program, or in ../libexec/fantail from there. kInvalid
/// lists those.
Result<std::string> find_relay();

}  // namespace fantail
