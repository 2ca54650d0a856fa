#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/base/unique_fd.h"

namespace fantail::state {

/// What one process is to do: a program, or a function of this program in a forked child. A function's result and what
/// it throws are carried back.
struct Task {
  std::vector<std::string> command;  ///< found in PATH; empty: the function
  std::function<nlohmann::json(const nlohmann::json& argument)> function;
  nlohmann::json argument;
  std::map<std::string, std::string> environment;  ///< added to ours
};

struct RetryPolicy {
  std::optional<unsigned> retries = 0;  ///< so many more tries; nothing: for ever
  Duration delay = 5s;                  ///< between the end of one and the next
  std::set<int> exit_codes{};           ///< only after these, and
  std::set<int> signals{};              ///< these, and
  std::set<std::string> exceptions{};   ///< these types; all empty: after every failure
};

/// What was thrown in the child.
struct RemoteException {
  std::string type;  ///< as the compiler spells it: "std::runtime_error"
  std::string message;
  std::string trace;  ///< exceptions nested in it, outermost first, one a line
};

/// How a process ended.
struct Ending {
  int exit_code = 0;  ///< -N: by signal N
  nlohmann::json result;
  std::optional<RemoteException> exception;
  unsigned tries = 1;
  bool ok() const { return exit_code == 0 && !exception; }
};

/// Ends this process with an exit code; for functions run by a group.
struct ProcessExit {
  int code = 0;
};

/// Processes that are started, waited for and ended together. When this object goes, or this process ends in whatever
/// way, `kill -9` included, every process goes, with all that it started. Each has a keeper for that: a small process
/// between this one and it. One thread.
class ProcessGroup {
 public:
  /// `report`: told of each try that failed and will be repeated; empty: nobody.
  using Report = std::function<void(std::size_t index, const Ending& ending, Duration next_in)>;
  explicit ProcessGroup(Duration grace = 500ms, Report report = {});
  ~ProcessGroup();
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  /// Starts a process; its index counts from 0.
  Result<std::size_t> start(Task task, RetryPolicy policy = {});
  /// Starts one process for each argument, all with the same function or command; a command finds its argument as JSON
  /// in $FANTAIL_ARGUMENT. Their indexes, in that order. Where one cannot be started, those before it are stopped.
  Result<std::vector<std::size_t>> start_each(const Task& task, const std::vector<nlohmann::json>& arguments,
                                              const RetryPolicy& policy = {});
  std::size_t size() const { return members_.size(); }
  bool alive(std::size_t index) const { return !members_.at(index).ending.has_value(); }
  /// Of the present try; -1 between two.
  pid_t pid(std::size_t index) const { return members_.at(index).pid; }
  /// Once it ended for good.
  const std::optional<Ending>& ending(std::size_t index) const { return members_.at(index).ending; }

  /// Waits until all have ended for good, at most until `deadline`. False: the deadline has passed, or `wake` is
  /// readable.
  bool wait(std::optional<MonoTime> deadline, int wake = -1);
  /// The same for one.
  bool wait_for(std::size_t index, std::optional<MonoTime> deadline, int wake = -1);
  /// Ends one, with all that it started, and tells how it ended. It is not started again.
  Ending stop(std::size_t index);
  void stop_all();

 private:
  struct Member {
    Task task;
    RetryPolicy policy;
    pid_t keeper = -1;
    UniqueFd keeper_fd;     ///< pidfd
    UniqueFd keeper_words;  ///< which process it is, and how it ended
    UniqueFd result_fd;     ///< what a function returns or throws, as JSON
    std::string result;
    pid_t pid = -1;
    unsigned tries = 0;
    std::optional<MonoTime> next_try;
    std::optional<Ending> ending;
    bool stopped = false;
  };
  Status launch(Member& member);
  static void read_some(Member& member);
  void collect(std::size_t index, MonoTime now);
  bool wait_until(const std::function<bool()>& done, std::optional<MonoTime> deadline, int wake);
  void step(MonoTime now);

  Duration grace_;
  Report report_;
  std::vector<Member> members_;
};

}  // namespace fantail::state
