#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/memory_links.h"

namespace fantail::test {

/// What a consumer has of one stream.
struct Received {
  wire::StreamInfo info;
  FileOffset begin;   ///< where delivery began
  std::string bytes;  ///< from `begin` on; '\0' where bytes are lost
  struct Loss {
    ByteRange range;
    wire::LossReason reason;
  };
  std::vector<Loss> losses;
  std::optional<FileOffset> final_length;

  FileOffset cursor() const { return begin + bytes.size(); }
};

/// A consumer in memory: subscriber, links, and a receiver that checks the order of what it gets. Its commits, and what
/// it was told of streams, are all that survives restart().
class RecordingConsumer final : public StreamReceiver {
 public:
  RecordingConsumer(std::string name, Chance& chance, SubscriberConfig config = {});
  ~RecordingConsumer() override;

  MemoryInlet inlet;
  MemoryControlLink link;
  SubscriberConfig config;
  bool durable = true;
  bool takes = true;  ///< false: answers kBlocked
  std::set<StreamId> came_as_news;
  std::vector<std::string> wrong;  ///< what broke the contract of StreamReceiver

  wire::Peer peer() const;
  StreamSubscriber& subscriber() { return *subscriber_; }
  const std::map<StreamId, Received>& received() const { return received_; }
  const Received* of(StreamId stream) const;
  /// As the source told of them last.
  const std::map<StreamId, wire::StreamInfo>& known() const { return known_; }

  void turn(MonoTime now);
  /// The process dies and starts again with what it committed. The link must be brought up again.
  void restart();
  /// What is there now is safe on disk, and told to the source.
  void commit();
  /// After takes was false.
  void take_again();

  Start on_stream(const NodeView& node, const wire::StreamInfo& info, bool news) override;
  Delivery on_data(StreamId stream, FileOffset offset, std::span<const std::byte> bytes, WallTime read_time) override;
  void on_loss(StreamId stream, ByteRange range, wire::LossReason reason) override;
  void on_sealed(StreamId stream, FileOffset final_length) override;
  void on_info(const NodeView& node, const wire::StreamInfo& info) override;
  std::optional<bool> tell_known(const NodeView& node, std::uint64_t after, StreamsPage& page) override;
  void on_beacon(const wire::Beacon&) override {}

 private:
  std::string name_;
  ConsumerControl control_;
  std::unique_ptr<StreamSubscriber> subscriber_;
  std::map<StreamId, Received> received_;
  std::map<StreamId, Received> committed_;
  std::map<StreamId, wire::StreamInfo> known_;
  std::set<StreamId> moved_;
};

}  // namespace fantail::test
