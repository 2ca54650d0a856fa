#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "common/base/clock.h"
#include "common/wire/messages.h"

namespace fantail::rpc {

/// Why a call has no result.
struct CallError {
  enum class Kind : std::uint8_t {
    kUnreachable,  ///< nobody greeted us before the deadline: nothing was sent
    kTimeout,      ///< sent, no answer before the deadline: it may still take effect
    kLost,         ///< sent, then the peer went away: it may have taken effect
    kRemote,       ///< the peer answered with a failure
  };
  Kind kind = Kind::kRemote;
  std::string type;     ///< kRemote: to branch on
  std::string message;  ///< for people
  std::string trace;    ///< kRemote: where it happened, where that is known
};

template <class T>
using CallResult = tl::expected<T, CallError>;

struct CallOptions {
  Duration timeout = 5s;    ///< from start to final answer; zero: for ever
  bool repeatable = false;  ///< harmless when it is done twice: sent again to a peer that went away and came back
};

/// The calls of one client: which answer belongs to which call, which are late. Takes time and messages as arguments
/// and owns no socket. An answer whose call has ended is counted and dropped, so it never reaches another call.
class CallTable {
 public:
  using OnPartial = std::function<void(std::string_view result)>;
  using OnDone = std::function<void(CallResult<std::string>)>;

  struct Call {
    std::string method;
    std::string arguments;
    CallOptions options;
    OnPartial on_partial;  ///< may be empty: partial answers are dropped then
    OnDone on_done;        ///< called exactly once
    std::optional<MonoTime> deadline{};
    bool sent = false;
    std::uint32_t next_sequence = 0;
    std::string type{};  ///< of the workers that may do it, where the peer hands it on
  };

  /// Takes a call; returns its number.
  std::uint64_t add(Call call, MonoTime now);
  /// The next call that waits to be sent, oldest first, or nothing.
  std::optional<std::uint64_t> next_unsent() const;
  const Call& call(std::uint64_t number) const { return calls_.at(number); }
  void sent(std::uint64_t number) { calls_.at(number).sent = true; }
  /// Ends a call without a word; its answer will be a late one.
  void forget(std::uint64_t number) { calls_.erase(number); }

  void on_reply(const wire::Reply& reply, std::string_view result);
  void on_failure(const wire::Failure& failure);
  /// The peer is gone: calls that it may have seen end, repeatable ones will be sent again.
  void on_peer_down(std::string_view reason);
  /// Ends the calls whose deadline has passed. Returns those of them that had been sent, to be cancelled.
  std::vector<std::uint64_t> expire(MonoTime now, std::string_view peer);
  std::optional<MonoTime> due() const;

  std::size_t size() const { return calls_.size(); }
  /// Whether a call was sent that is not answered.
  bool awaits_answers() const;
  std::uint64_t late_answers() const { return late_answers_; }

 private:
  void end(std::map<std::uint64_t, Call>::iterator call, CallResult<std::string> result);

  std::map<std::uint64_t, Call> calls_;
  std::uint64_t next_ = 1;
  std::uint64_t late_answers_ = 0;
};

}  // namespace fantail::rpc
