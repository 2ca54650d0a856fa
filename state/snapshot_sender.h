#pragma once

#include <cstdint>
#include <deque>
#include <string>

#include "common/rpc/rpc_server.h"
#include "common/transport/frame.h"
#include "state/store.h"

namespace fantail::state {

/// Sends the entries of the store to those who asked for them: in partial answers, a piece a turn, while the store
/// changes. What is on its way, to all of them together, is bounded to 8 MiB. One thread.
class SnapshotSender {
 public:
  /// Both are borrowed.
  SnapshotSender(const StateStore& store, rpc::RpcServer& rpc);

  /// Entries of one namespace, or of all where it is empty, whose keys begin with `prefix`; then the final answer with
  /// the revisions between which they are as they are.
  void start(const rpc::Caller& caller, std::string name_space, std::string prefix);
  /// Nobody waits for it any more.
  void forget(const rpc::Caller& caller);

  /// Sends what there is room for; returns how many pieces. Nobody tells when there is room again: call it each
  /// millisecond until idle().
  std::size_t turn();
  bool idle() const { return jobs_.empty(); }

 private:
  struct Job {
    rpc::Caller caller;
    std::string name_space;
    std::string prefix;
    std::uint64_t begin = 0;  ///< revision when it began
    std::string at_name_space;
    std::string at_key;  ///< the last entry that was sent
  };
  bool send_piece(Job& job, bool& more);
  Frame frame_of_lines();

  const StateStore& store_;
  rpc::RpcServer& rpc_;
  std::deque<Job> jobs_;
  FramePool pool_;
  std::string lines_;  ///< of one piece; kept for its memory
};

}  // namespace fantail::state
