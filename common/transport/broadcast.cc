#include "common/transport/broadcast.h"

#include "common/transport/connections.h"
#include "common/transport/zmq_socket.h"

namespace fantail {

using transport::SendResult;

struct Publisher::Impl {
  std::uint64_t refused_keys = 0;
  transport::Connections connections;
  zmq::socket_t socket;
  transport::RefusedHandshakes refused;
  std::set<std::string, std::less<>> subscriptions;
  bool blocking = true;  // the socket's ZMQ_XPUB_NODROP
};

Publisher::Publisher(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Publisher::~Publisher() {
  // What was accepted may still leave, to those who take it.
  if (impl_) impl_->socket.set(zmq::sockopt::linger, 500);
}

Result<std::unique_ptr<Publisher>> Publisher::open(Context& context, int queue_messages) {
  auto socket = transport::open_socket(context, zmq::socket_type::xpub, {.send_queue_messages = queue_messages});
  if (!socket) return tl::unexpected(socket.error());
  socket->set(zmq::sockopt::xpub_nodrop, true);
  // A consumer that is gone keeps no queue and holds up nobody; what it misses it fetches when it is back.
  socket->set(zmq::sockopt::immediate, true);
  auto refused = transport::RefusedHandshakes::watch(*socket, context);
  if (!refused) return tl::unexpected(refused.error());
  auto impl = std::make_unique<Impl>();
  impl->refused = std::move(*refused);
  impl->socket = std::move(*socket);
  return std::unique_ptr<Publisher>(new Publisher(std::move(impl)));
}

Result<std::string> Publisher::bind(const Endpoint& endpoint) {
  return transport::bind_socket(impl_->socket, endpoint);
}
Status Publisher::connect(const Endpoint& endpoint) {
  return impl_->connections.connect(impl_->socket, endpoint.to_string());
}

BroadcastPort::Outcome Publisher::send(BroadcastMessage& message, WhenFull when_full) {
  const bool block = when_full == WhenFull::kBlock;
  if (block != impl_->blocking) {
    impl_->socket.set(zmq::sockopt::xpub_nodrop, block);
    impl_->blocking = block;
  }
  // libzmq decides for all parts at the first one: only that can be refused.
  if (transport::send_part(impl_->socket, message.topic, true) != SendResult::kSent) return Outcome::kBlocked;
  transport::send_part(impl_->socket, message.header, true);
  transport::send_part(impl_->socket, message.payload, false);
  return Outcome::kSent;
}

bool Publisher::wanted(std::string_view topic_frame) const {
  for (const auto& prefix : impl_->subscriptions) {
    if (topic_frame.starts_with(prefix)) return true;
  }
  return false;
}

bool Publisher::receive_subscriptions() {
  const MonoTime now = mono_now();
  impl_->refused_keys +=
      impl_->refused.take([&](std::string_view address) { impl_->connections.refused(address, now); });
  impl_->connections.tend(impl_->socket, now);
  constexpr std::size_t kMaxSubscriptions = 65'536;  // of all consumers together; more can only be an attack
  bool any_new = false;
  Frame frame;
  bool more = false;
  while (transport::receive_part(impl_->socket, frame, more)) {
    const auto bytes = frame.bytes();
    if (bytes.empty()) continue;
    const std::string_view prefix = frame.text().substr(1);
    if (bytes[0] == std::byte{1}) {
      any_new = true;
      if (impl_->subscriptions.size() < kMaxSubscriptions) impl_->subscriptions.emplace(prefix);
    } else if (bytes[0] == std::byte{0}) {
      const auto found = impl_->subscriptions.find(prefix);
      if (found != impl_->subscriptions.end()) impl_->subscriptions.erase(found);
    }
  }
  return any_new;
}

std::uint64_t Publisher::refused_keys() const { return impl_->refused_keys; }

void* Publisher::native_socket() const { return impl_->socket.handle(); }
int Publisher::mailbox_fd() const { return impl_->socket.get(zmq::sockopt::fd); }

struct Subscriber::Impl {
  transport::Connections connections;
  zmq::socket_t socket;
  transport::RefusedHandshakes refused;
};

Subscriber::Subscriber(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Subscriber::~Subscriber() = default;

Result<std::unique_ptr<Subscriber>> Subscriber::open(Context& context, int queue_messages,
                                                     const std::vector<std::string>& subscriptions) {
  auto socket = transport::open_socket(context, zmq::socket_type::sub, {.receive_queue_messages = queue_messages});
  if (!socket) return tl::unexpected(socket.error());
  for (const auto& prefix : subscriptions) socket->set(zmq::sockopt::subscribe, prefix);
  auto refused = transport::RefusedHandshakes::watch(*socket, context);
  if (!refused) return tl::unexpected(refused.error());
  auto impl = std::make_unique<Impl>();
  impl->refused = std::move(*refused);
  impl->socket = std::move(*socket);
  return std::unique_ptr<Subscriber>(new Subscriber(std::move(impl)));
}

Result<std::string> Subscriber::bind(const Endpoint& endpoint) {
  return transport::bind_socket(impl_->socket, endpoint);
}
Status Subscriber::connect(const Endpoint& endpoint) {
  return impl_->connections.connect(impl_->socket, endpoint.to_string());
}

void Subscriber::tend(MonoTime now) {
  impl_->refused.take([&](std::string_view address) { impl_->connections.refused(address, now); });
  impl_->connections.tend(impl_->socket, now);
}

bool Subscriber::receive(BroadcastMessage& message) {
  return transport::receive_message(impl_->socket, message, malformed_);
}

void* Subscriber::native_socket() const { return impl_->socket.handle(); }

}  // namespace fantail
