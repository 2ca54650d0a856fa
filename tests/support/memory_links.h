#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/stream/stream_publisher.h"
#include "common/stream/stream_subscriber.h"
#include "common/transport/broadcast.h"
#include "common/transport/control_link.h"
#include "tests/support/seeded.h"

/// Broadcast and control links in memory, on the seams where production has sockets. They move real frames, so what is
/// tested is all of the engine, its encoding included; and they can be as bad as a network.
namespace fantail::test {

/// What a network does to messages. All zero: a perfect one.
struct Faults {
  double drop = 0;
  double duplicate = 0;
  double corrupt = 0;  ///< one byte of any frame
  double late = 0;     ///< overtaken by others, by up to `latest`
  Duration latest = 0ms;

  double refuse = 0;  ///< control links: send() says that the queue is full
  Duration delay = 0ms;
};

struct LooseMessage {
  std::string topic;
  std::string header;
  std::string payload;
};

/// The receiving end of a broadcast.
class MemoryInlet final : public BroadcastInlet {
 public:
  explicit MemoryInlet(Chance& chance) : chance_(chance) {}

  Faults faults;
  std::size_t queue_messages = SIZE_MAX;  ///< full at that many
  bool listening = true;
  std::vector<std::string> subscriptions = {""};

  bool full() const { return listening && waiting_.size() >= queue_messages; }
  bool wants(std::string_view topic) const;
  void arrive(const LooseMessage& message, MonoTime now);
  /// Messages that are due at `now` can be received.
  void pass(MonoTime now) { now_ = now; }
  void clear() { waiting_.clear(); }

  bool receive(BroadcastMessage& message) override;

 private:
  Chance& chance_;
  MonoTime now_{};
  std::multimap<MonoTime, LooseMessage> waiting_;
};

/// The sending end: everything goes to every inlet.
class MemoryBroadcast final : public BroadcastPort {
 public:
  std::vector<MemoryInlet*> inlets;
  MonoTime now{};

  Outcome send(BroadcastMessage& message, WhenFull when_full) override;
  bool wanted(std::string_view topic_frame) const override;
};

/// One control link between a source and a consumer: messages arrive in order, when the link is up.
class MemoryControlLink {
 public:
  MemoryControlLink(Chance& chance) : chance_(chance) {}

  Faults faults;

  /// Both sides learn that the other is there. The link forgets what was under way.
  void come_up(ControlEvents& source, const wire::Peer& source_is, ControlEvents& consumer,
               const wire::Peer& consumer_is);
  void go_down();
  /// The source is another process now, and greets before the consumer has noticed that the old one is gone.
  void greet_anew(ControlEvents& source, const wire::Peer& source_is, const wire::Peer& consumer_is);
  bool up() const { return up_; }

  /// Hands over what is due; returns how many messages.
  std::size_t pass(MonoTime now);
  std::size_t sent_to_source() const { return sent_to_source_; }  ///< messages, lost ones included

  PeerId source_calls_consumer() const { return consumer_id_; }
  bool send_to_consumer(std::span<const std::byte> header, const Frame& payload) {
    return send(to_consumer_, header, payload);
  }
  bool send_to_source(std::span<const std::byte> header, const Frame& payload) {
    ++sent_to_source_;
    return send(to_source_, header, payload);
  }
  MonoTime now{};

 private:
  struct Message {
    MonoTime due;
    std::string header;
    std::string payload;
  };
  bool send(std::deque<Message>& queue, std::span<const std::byte> header, const Frame& payload);
  static std::size_t deliver(std::deque<Message>& queue, MonoTime now, PeerId from, ControlEvents& to);

  Chance& chance_;
  bool up_ = false;
  ControlEvents* source_ = nullptr;
  ControlEvents* consumer_ = nullptr;
  PeerId consumer_id_;  ///< as the source sees it
  PeerId source_id_;    ///< as the consumer sees it
  std::size_t sent_to_source_ = 0;
  std::deque<Message> to_source_;
  std::deque<Message> to_consumer_;
};

/// The source's end of all its control links.
class SourceControl final : public ControlPort {
 public:
  std::vector<MemoryControlLink*> links;
  using ControlPort::send;
  bool send(PeerId peer, std::span<const std::byte> header, Frame payload) override;
};

/// A consumer's end of its control links to sources.
class ConsumerControl final : public ControlPort {
 public:
  explicit ConsumerControl(MemoryControlLink& link) : link_(link) {}
  using ControlPort::send;
  bool send(PeerId, std::span<const std::byte> header, Frame payload) override {
    return link_.send_to_source(header, payload);
  }

 private:
  MemoryControlLink& link_;
};

}  // namespace fantail::test
