#include "tests/support/memory_links.h"

#include <algorithm>

#include "common/base/digest.h"
#include "common/wire/codec.h"

namespace fantail::test {
namespace {

PeerId next_peer_id() {
  static std::uint64_t last = 0;
  return PeerId{++last};
}

void flip_a_bit(LooseMessage& message, Chance& chance) {
  std::string* const frames[] = {&message.topic, &message.header, &message.payload};
  std::string& frame = *frames[chance.between(std::size_t{0}, std::size_t{2})];
  if (frame.empty()) return;
  char& byte = frame[chance.between(std::size_t{0}, frame.size() - 1)];
  byte = static_cast<char>(byte ^ (1 << chance.between(std::size_t{0}, std::size_t{7})));
}

}  // namespace

bool MemoryInlet::wants(std::string_view topic) const {
  return listening && std::any_of(subscriptions.begin(), subscriptions.end(),
                                  [&](const std::string& prefix) { return topic.starts_with(prefix); });
}

void MemoryInlet::arrive(const LooseMessage& message, MonoTime now) {
  if (!wants(message.topic) || chance_.with(faults.drop)) return;
  const int copies = chance_.with(faults.duplicate) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    MonoTime due = now;
    if (chance_.with(faults.late)) due += chance_.between(Duration::zero(), Duration(faults.latest));
    LooseMessage received = message;
    if (chance_.with(faults.corrupt)) flip_a_bit(received, chance_);
    waiting_.emplace(due, std::move(received));
  }
}

bool MemoryInlet::receive(BroadcastMessage& message) {
  if (waiting_.empty() || waiting_.begin()->first > now_) return false;
  const LooseMessage& next = waiting_.begin()->second;
  message.topic = Frame::copy_of(next.topic);
  message.header = Frame::copy_of(next.header);
  message.payload = Frame::copy_of(next.payload);
  waiting_.erase(waiting_.begin());
  return true;
}

BroadcastPort::Outcome MemoryBroadcast::send(BroadcastMessage& message, WhenFull when_full) {
  const auto full = [&](const MemoryInlet* inlet) { return inlet->full() && inlet->wants(message.topic.text()); };
  if (when_full == WhenFull::kBlock && std::any_of(inlets.begin(), inlets.end(), full)) return Outcome::kBlocked;
  const LooseMessage loose{std::string(message.topic.text()), std::string(message.header.text()),
                           std::string(message.payload.text())};
  for (MemoryInlet* inlet : inlets) {
    if (!full(inlet)) inlet->arrive(loose, now);
  }
  return Outcome::kSent;
}

bool MemoryBroadcast::wanted(std::string_view topic_frame) const {
  return std::any_of(inlets.begin(), inlets.end(), [&](const MemoryInlet* inlet) { return inlet->wants(topic_frame); });
}

void MemoryControlLink::come_up(ControlEvents& source, const wire::Peer& source_is, ControlEvents& consumer,
                                const wire::Peer& consumer_is) {
  go_down();
  source_ = &source;
  consumer_ = &consumer;
  consumer_id_ = next_peer_id();
  source_id_ = next_peer_id();
  up_ = true;
  source.on_peer_up(consumer_id_, consumer_is);
  consumer.on_peer_up(source_id_, source_is);
}

void MemoryControlLink::go_down() {
  if (!up_) return;
  up_ = false;
  to_source_.clear();
  to_consumer_.clear();
  source_->on_peer_down(consumer_id_, "the test cut the link");
  consumer_->on_peer_down(source_id_, "the test cut the link");
}

void MemoryControlLink::greet_anew(ControlEvents& source, const wire::Peer& source_is, const wire::Peer& consumer_is) {
  to_source_.clear();
  to_consumer_.clear();
  source_->on_peer_down(consumer_id_, "the test replaced the source");
  source_ = &source;
  consumer_id_ = next_peer_id();
  source_id_ = next_peer_id();
  source.on_peer_up(consumer_id_, consumer_is);
  consumer_->on_peer_up(source_id_, source_is);
}

bool MemoryControlLink::send(std::deque<Message>& queue, std::span<const std::byte> header, const Frame& payload) {
  if (!up_ || chance_.with(faults.refuse)) return false;
  if (chance_.with(faults.drop)) return true;  // the sender does not notice
  MonoTime due = now + chance_.between(Duration::zero(), Duration(faults.delay));
  if (!queue.empty()) due = std::max(due, queue.back().due);
  queue.push_back({due, std::string(as_text(header)), std::string(payload.text())});
  return true;
}

std::size_t MemoryControlLink::deliver(std::deque<Message>& queue, MonoTime now, PeerId from, ControlEvents& to) {
  std::size_t handed_over = 0;
  while (!queue.empty() && queue.front().due <= now) {
    const Message message = std::move(queue.front());
    queue.pop_front();
    ++handed_over;
    const Frame header = Frame::copy_of(message.header);
    Frame payload = Frame::copy_of(message.payload);
    const auto envelope = wire::open_envelope({}, header.bytes(), payload.bytes());
    if (envelope) to.on_control(from, envelope->kind, envelope->body, std::move(payload));
  }
  return handed_over;
}

std::size_t MemoryControlLink::pass(MonoTime at) {
  now = at;
  if (!up_) return 0;
  const std::size_t handed_over = deliver(to_source_, at, consumer_id_, *source_);
  return handed_over + deliver(to_consumer_, at, source_id_, *consumer_);
}

bool SourceControl::send(PeerId peer, std::span<const std::byte> header, Frame payload) {
  for (MemoryControlLink* link : links) {
    if (link->up() && link->source_calls_consumer() == peer) return link->send_to_consumer(header, payload);
  }
  return false;
}

}  // namespace fantail::test
