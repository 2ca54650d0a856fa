#include "tests/support/recording_consumer.h"

#include "common/base/digest.h"

namespace fantail::test {

RecordingConsumer::RecordingConsumer(std::string name, Chance& chance, SubscriberConfig with)
    : inlet(chance), link(chance), config(std::move(with)), name_(std::move(name)), control_(link) {
  config.durable = durable;
  config.random_seed = chance.between(std::size_t{1}, std::size_t{1'000'000});
  subscriber_ = std::make_unique<StreamSubscriber>(config, inlet, control_, *this);
}
RecordingConsumer::~RecordingConsumer() = default;

wire::Peer RecordingConsumer::peer() const {
  wire::Peer who;
  who.role = wire::Role::kConsumer;
  who.instance = random_id<InstanceId>();
  who.name = name_;
  if (durable) who.durable_name = name_;
  who.topics = config.interest.topics;
  who.shard_index = config.interest.shard_index;
  who.shard_count = config.interest.shard_count;
  return who;
}

const Received* RecordingConsumer::of(StreamId stream) const {
  const auto found = received_.find(stream);
  return found == received_.end() ? nullptr : &found->second;
}

void RecordingConsumer::turn(MonoTime now) {
  inlet.pass(now);
  link.now = now;
  while (subscriber_->turn(now) > 0) {
  }
}

void RecordingConsumer::restart() {
  link.go_down();
  inlet.clear();
  received_ = committed_;
  moved_.clear();
  subscriber_ = std::make_unique<StreamSubscriber>(config, inlet, control_, *this);
}

void RecordingConsumer::commit() {
  std::vector<wire::CommitEntry> entries;
  for (const StreamId id : moved_) {
    committed_[id] = received_.at(id);
    entries.push_back({id, received_.at(id).cursor()});
  }
  moved_.clear();
  subscriber_->commit(entries);
}

void RecordingConsumer::take_again() {
  takes = true;
  subscriber_->resume();
}

void RecordingConsumer::on_info(const NodeView&, const wire::StreamInfo& info) { known_[info.stream] = info; }

std::optional<bool> RecordingConsumer::tell_known(const NodeView&, std::uint64_t after, StreamsPage& page) {
  std::map<std::uint64_t, wire::StreamInfo> by_sequence;
  for (const auto& [id, info] : known_) by_sequence.emplace(info.sequence, info);
  for (auto it = by_sequence.upper_bound(after); it != by_sequence.end(); ++it) {
    if (!page.has_room()) return true;
    wire::StreamInfo& info = it->second;
    const auto safe = committed_.find(info.stream);
    info.committed = info.sent = safe == committed_.end() ? FileOffset{} : safe->second.cursor();
    info.head = info.sealed ? std::max(info.head, info.committed) : std::max(info.base, info.committed);
    page.add(info);
  }
  return false;
}

StreamReceiver::Start RecordingConsumer::on_stream(const NodeView& node, const wire::StreamInfo& info, bool news) {
  on_info(node, info);
  if (news) came_as_news.insert(info.stream);
  const auto [found, fresh] = received_.try_emplace(info.stream);
  Received& r = found->second;
  if (fresh) r.begin = info.base;
  r.info = info;
  r.final_length.reset();
  const auto safe = committed_.find(info.stream);
  return {r.cursor(), safe == committed_.end() ? FileOffset{} : safe->second.cursor()};
}

StreamReceiver::Delivery RecordingConsumer::on_data(StreamId stream, FileOffset offset,
                                                    std::span<const std::byte> bytes, WallTime) {
  if (!takes) return Delivery::kBlocked;
  Received& r = received_.at(stream);
  if (offset != r.cursor()) {
    wrong.push_back("stream " + short_hex(stream) + ": data at " + std::to_string(offset.raw) + " instead of " +
                    std::to_string(r.cursor().raw));
  }
  r.bytes += as_text(bytes);
  moved_.insert(stream);
  return Delivery::kTaken;
}

void RecordingConsumer::on_loss(StreamId stream, ByteRange range, wire::LossReason reason) {
  Received& r = received_.at(stream);
  if (range.from != r.cursor() || range.empty()) {
    wrong.push_back("stream " + short_hex(stream) + ": loss from " + std::to_string(range.from.raw) + " to " +
                    std::to_string(range.to.raw) + " at " + std::to_string(r.cursor().raw));
  }
  r.bytes.append(range.bytes(), '\0');
  r.losses.push_back({range, reason});
  moved_.insert(stream);
}

void RecordingConsumer::on_sealed(StreamId stream, FileOffset final_length) {
  Received& r = received_.at(stream);
  if (final_length > r.cursor()) wrong.push_back("stream " + short_hex(stream) + ": sealed before its end");
  r.final_length = final_length;
  known_.at(stream).sealed = true;
  known_.at(stream).head = final_length;
}

}  // namespace fantail::test
