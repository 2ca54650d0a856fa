#include "common/transport/broadcast_side.h"

namespace fantail {

Result<BroadcastSide> BroadcastSide::open(Context& context, const Config& config) {
  BroadcastSide side;
  std::uint64_t mbit = config.rate_mbit;
  if (config.epgm) {
    const auto group = config.multicast.to_send(config.rate_mbit);
    if (!group) return tl::unexpected(group.error());
    auto local = config.multicast.local();
    if (!local) return tl::unexpected(local.error());
    auto multicast = EpgmPublisher::open(context, *group, config.queue_messages);
    if (!multicast) return tl::unexpected(multicast.error());
    side.multicast_ = std::move(*multicast);
    side.address_ = group->address;
    side.local_ = std::move(*local);
    if (mbit == 0) mbit = kDefaultMulticastMbit;
  } else {
    auto publisher = Publisher::open(context, config.queue_messages);
    if (!publisher) return tl::unexpected(publisher.error());
    auto bound = (*publisher)->bind(config.publish);
    if (!bound) return tl::unexpected(bound.error());
    side.publisher_ = std::move(*publisher);
    side.address_ = std::move(*bound);
  }
  side.rate_bytes_per_s_ = mbit * 1'000'000 / 8;
  return side;
}

BroadcastPort& BroadcastSide::port() const {
  return multicast_ ? static_cast<BroadcastPort&>(*multicast_) : *publisher_;
}

std::string BroadcastSide::advertised(const std::string& control) const {
  const auto reachable = parse_endpoint(control);
  if (!multicast_ || !reachable || reachable->scheme != Endpoint::Scheme::kTcp) return {};
  if (reachable->is_local() && !local_.starts_with("127.")) return {};
  return reachable_at(control, local_);
}

bool BroadcastSide::turn(MonoTime now) {
  if (multicast_) multicast_->relay().turn(now);
  return publisher_ && publisher_->receive_subscriptions();
}

MonoTime BroadcastSide::due(MonoTime now) const { return multicast_ ? multicast_->relay().due(now) : MonoTime::max(); }

void BroadcastSide::add_to(Waiter& waiter, bool blocked) const {
  if (publisher_) waiter.add_socket(publisher_->native_socket());
  if (multicast_ && multicast_->relay().fd() >= 0) waiter.add_descriptor(multicast_->relay().fd());
  if (blocked) waiter.add_descriptor(multicast_ ? multicast_->mailbox_fd() : publisher_->mailbox_fd());
}

}  // namespace fantail
