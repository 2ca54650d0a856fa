#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "common/stream/broadcaster.h"
#include "common/stream/commit_ledger.h"
#include "common/stream/fetch_server.h"
#include "common/stream/published_streams.h"
#include "common/transport/broadcast.h"
#include "common/transport/control_link.h"

namespace fantail {

struct PublisherConfig {
  NodeId node;
  InstanceId instance;
  std::string name;
  std::string control;     ///< told in beacons; empty where consumers are reached otherwise
  bool multicast = false;  ///< the broadcast knows no subscriptions: a greeting of a consumer counts as one
  Duration beacon_interval = 1s;
  Duration news_interval = 50ms;  ///< heads that moved are told on control links at most this often
  /// Bytes that came while nobody wanted them are broadcast when somebody does. False: they are not, who needs them
  /// fetches them; for streams whose readers begin at the end.
  bool broadcast_backlog = true;
  BroadcastConfig broadcast;
};

/// What the owner of the streams has to know.
class PublisherEvents {
 public:
  virtual ~PublisherEvents() = default;
  /// A source answered kReplaced: seal the stream. May seal and add streams before it returns.
  virtual void on_broken(StreamId stream, const Error& error) = 0;
  virtual void on_sent(const wire::StreamInfo& stream) = 0;
  /// A durable consumer has everything below `offset` on disk.
  virtual void on_commit(const std::string& consumer, StreamId stream, FileOffset offset) = 0;
  virtual void on_consumer(const std::string& durable_name, const Interest& interest) = 0;

  // For an owner that asks consumers for what they know, see hold().
  virtual void on_consumer_up(PeerId peer, const wire::Peer& who) { (void)peer, (void)who; }
  virtual void on_consumer_down(PeerId peer) { (void)peer; }
  virtual void on_known(PeerId peer, const wire::Streams& known) { (void)peer, (void)known; }
};

/// The source's half of the stream engine: broadcasts what is new, tells consumers what there is, serves what they miss
/// and remembers what they have. Used alike for tailed files and journals. One thread; drive it with turn().
class StreamPublisher final : public ControlEvents {
 public:
  StreamPublisher(PublisherConfig config, BroadcastPort& broadcast, ControlPort& control, FramePool& pool,
                  CommitLedger& ledger, PublisherEvents& events);

  /// `source` must outlive the stream's removal; null for one whose bytes are gone for `gone`.
  void add(const wire::StreamInfo& info, StreamSource* source, wire::LossReason gone = wire::LossReason::kUnknown);
  /// The source holds bytes up to `head` now.
  void advance(StreamId stream, FileOffset head);
  /// Bytes that it holds below its head, and could not give until now, can be read.
  void readable(StreamId stream);
  /// `final_length` is final. With `gone` the bytes cannot be read any more, else the source stays.
  void seal(StreamId stream, FileOffset final_length, std::optional<wire::LossReason> gone);
  /// All there is was sent, and what is behind cannot be read, however much it is: one byte stands for it as a loss.
  /// What was sent stays readable.
  void cut_off(StreamId stream, wire::LossReason reason);
  /// The source is asked for what is behind `to` once more, and that is broadcast again; it goes on from there.
  void rewind(StreamId stream, FileOffset to);
  /// All of it is committed, or it is of no interest any more.
  void remove(StreamId stream);
  const wire::StreamInfo* info(StreamId stream) const;
  /// Whether anybody wants its topic now.
  bool wanted(StreamId stream) const;
  /// More is known of the file behind it.
  void identify(StreamId stream, const wire::FileIdentity& file);

  /// Until release() nobody is told what streams there are: those that are not here yet may come, so a List waits and a
  /// Fetch is not answered with a loss.
  void hold() { held_ = true; }
  void release();
  /// Asks a consumer for the streams of this node that it knows, behind `after`. False: its queue is full.
  bool ask(PeerId consumer, std::uint64_t after) { return control_.send(consumer, encoder_.list({after})); }

  /// New subscriptions arrived at the broadcast.
  void on_subscription() { broadcaster_.unpark(); }

  /// Does a bounded piece of everything; returns how much. Never waits.
  std::size_t turn(MonoTime now);
  /// When to call turn() again although nothing happened.
  MonoTime due(MonoTime now);
  bool blocked() const { return broadcaster_.blocked(); }
  /// Everything known was sent and asked for nothing more.
  bool nothing_queued() const { return broadcaster_.idle() && fetches_.idle(); }

  /// Every consumer that is connected was told of every stream and head.
  bool everybody_knows() const;
  /// Counts what happens to streams: each that is added, and each change of what is there, sent or final of one.
  std::uint64_t changes() const { return changes_; }
  std::size_t consumers() const { return sessions_.size(); }
  const BroadcastCounters& broadcast_counters() const { return broadcaster_.counters(); }
  std::uint64_t unknown_kinds() const { return unknown_kinds_; }
  const FetchCounters& fetch_counters() const { return fetches_.counters(); }

  void on_peer_up(PeerId peer, const wire::Peer& who) override;
  void on_peer_down(PeerId peer, std::string_view reason) override;
  void on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) override;

 private:
  /// One consumer that greeted us.
  struct Session {
    wire::Peer who;
    Interest interest;
    std::set<StreamId> unannounced;           ///< streams it has not been told of
    std::set<StreamId> moved;                 ///< heads it has not been told of
    std::optional<std::uint64_t> list_after;  ///< a List that waits for release()
  };

  bool wanted(const PublishedStream& stream) const;
  void changed(const PublishedStream& stream);
  void send_page(PeerId peer, std::uint64_t after);
  void send_news(PeerId peer, Session& session, bool heads_too);
  void send_beacon(MonoTime now);
  wire::Beacon beacon_of(const std::set<StreamId>& heads) const;

  PublisherConfig config_;
  BroadcastPort& broadcast_;
  ControlPort& control_;
  CommitLedger& ledger_;
  PublisherEvents& events_;
  PublishedStreams streams_;
  Broadcaster broadcaster_;
  FetchServer fetches_;
  wire::Encoder encoder_;
  std::map<PeerId, Session> sessions_;
  std::map<StreamId, MonoTime> recent_;  ///< heads for the next broadcast beacons, with the time they moved
  MonoTime now_{};
  MonoTime next_beacon_{};
  Duration lonely_interval_{};  ///< between beacons while nobody is there
  MonoTime next_news_{};
  bool unannounced_ = false;
  bool held_ = false;
  std::uint64_t changes_ = 0;
  std::uint64_t unknown_kinds_ = 0;
  log::Repeated reject_log_;
};

}  // namespace fantail
