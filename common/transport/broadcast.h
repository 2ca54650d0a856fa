#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/transport/context.h"
#include "common/transport/endpoint.h"
#include "common/transport/frame.h"

namespace fantail {

/// A data message: three frames.
struct BroadcastMessage {
  Frame topic;
  Frame header;
  Frame payload;
};

/// Where broadcasts go out. Best effort: what it accepts may still be lost.
class BroadcastPort {
 public:
  enum class Outcome : std::uint8_t {
    kSent,
    kBlocked,  ///< some receiver's queue is full; the message is untouched, try again
  };
  enum class WhenFull : std::uint8_t { kBlock, kSkipThatReceiver };

  virtual ~BroadcastPort() = default;
  virtual Outcome send(BroadcastMessage& message, WhenFull when_full) = 0;
  /// Whether anybody may be listening to this topic frame.
  virtual bool wanted(std::string_view topic_frame) const = 0;
};

/// Where broadcasts come in.
class BroadcastInlet {
 public:
  virtual ~BroadcastInlet() = default;
  /// The next message, without waiting; false when there is none. Messages that do not have three frames are dropped
  /// and counted.
  virtual bool receive(BroadcastMessage& message) = 0;
  std::uint64_t malformed() const { return malformed_; }

 protected:
  std::uint64_t malformed_ = 0;
};

/// PUB side over tcp or ipc: binds or connects, any number of each. One thread.
class Publisher final : public BroadcastPort {
 public:
  /// `queue_messages`: at most this many wait for one slow receiver; times the largest chunk it is the byte bound.
  static Result<std::unique_ptr<Publisher>> open(Context& context, int queue_messages);
  ~Publisher() override;

  Result<std::string> bind(const Endpoint& endpoint);  ///< the address really bound
  Status connect(const Endpoint& endpoint);

  Outcome send(BroadcastMessage& message, WhenFull when_full) override;
  bool wanted(std::string_view topic_frame) const override;

  /// Takes in subscriptions that arrived; true when there was a new one. Makes connections anew that libzmq gave up.
  bool receive_subscriptions();
  /// Connections with another key than ours, or where one side has none, until receive_subscriptions() was called last.
  std::uint64_t refused_keys() const;

  void* native_socket() const;
  int mailbox_fd() const;  ///< readable when a blocked send may go on

 private:
  struct Impl;
  explicit Publisher(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// SUB side over tcp or ipc. One thread.
class Subscriber final : public BroadcastInlet {
 public:
  /// `queue_messages`: at most this many wait per connected publisher.
  static Result<std::unique_ptr<Subscriber>> open(Context& context, int queue_messages,
                                                  const std::vector<std::string>& subscriptions);
  ~Subscriber() override;

  Result<std::string> bind(const Endpoint& endpoint);
  Status connect(const Endpoint& endpoint);

  /// To be called each second or so: connections that libzmq gave up are made anew. Never waits.
  void tend(MonoTime now);

  bool receive(BroadcastMessage& message) override;
  void* native_socket() const;

 private:
  struct Impl;
  explicit Subscriber(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fantail
