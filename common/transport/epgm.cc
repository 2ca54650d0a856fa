#include "common/transport/epgm.h"

#include <cerrno>

#include "common/base/private_directory.h"
#include "common/transport/multicast_message.h"
#include "common/transport/zmq_socket.h"

namespace fantail {

namespace {

std::string milliseconds(Duration d) { return std::to_string(to_milliseconds(d)); }

/// A bound ipc socket in a directory of its own, and the relay that connects to it.
struct Bridge {
  PrivateDirectory directory;
  zmq::socket_t socket;
  std::string address;

  static Result<Bridge> open(Context& context, zmq::socket_type type, const transport::SocketOptions& options) {
    auto directory = PrivateDirectory::make();
    if (!directory) return tl::unexpected(directory.error());
    auto socket = transport::open_socket(context, type, options);
    if (!socket) return tl::unexpected(socket.error());
    if (type == zmq::socket_type::push) socket->set(zmq::sockopt::immediate, true);
    Endpoint endpoint{Endpoint::Scheme::kIpc, (directory->path() / "relay").string(), {}};
    auto address = transport::bind_socket(*socket, endpoint);
    if (!address) return tl::unexpected(address.error());
    return Bridge{std::move(*directory), std::move(*socket), endpoint.to_string()};
  }
};

}  // namespace

struct EpgmPublisher::Impl {
  Bridge bridge;
  RelayProcess relay;
};

EpgmPublisher::EpgmPublisher(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EpgmPublisher::~EpgmPublisher() = default;

Result<std::unique_ptr<EpgmPublisher>> EpgmPublisher::open(Context& context, const EpgmConfig& config,
                                                           int queue_messages) {
  if (const auto found = find_relay(); !found) return tl::unexpected(found.error());
  auto bridge = Bridge::open(context, zmq::socket_type::push, {.send_queue_messages = queue_messages});
  if (!bridge) return tl::unexpected(bridge.error());
  std::vector<std::string> arguments = {"send",
                                        bridge->address,
                                        config.address,
                                        std::to_string(config.rate_kbit_per_s),
                                        milliseconds(config.send_window),
                                        std::to_string(config.send_tpdu)};
  return std::unique_ptr<EpgmPublisher>(
      new EpgmPublisher(std::unique_ptr<Impl>(new Impl{std::move(*bridge), RelayProcess(std::move(arguments))})));
}

BroadcastPort::Outcome EpgmPublisher::send(BroadcastMessage& message, WhenFull when_full) {
  auto& socket = impl_->bridge.socket;
  if ((socket.get(zmq::sockopt::events) & ZMQ_POLLOUT) != 0) {
    Frame packed = pack_multicast(message);
    if (transport::send_part(socket, packed, false) == transport::SendResult::kSent) return Outcome::kSent;
  }
  // There is only one receiver, the relay: to go on without it is to drop the message.
  return when_full == WhenFull::kBlock ? Outcome::kBlocked : Outcome::kSent;
}

RelayProcess& EpgmPublisher::relay() { return impl_->relay; }
int EpgmPublisher::mailbox_fd() const { return impl_->bridge.socket.get(zmq::sockopt::fd); }

struct EpgmSubscriber::Impl {
  Bridge bridge;
  RelayProcess relay;
};

EpgmSubscriber::EpgmSubscriber(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EpgmSubscriber::~EpgmSubscriber() = default;

Result<std::unique_ptr<EpgmSubscriber>> EpgmSubscriber::open(Context& context, const EpgmConfig& config,
                                                             int queue_messages,
                                                             const std::vector<std::string>& subscriptions) {
  if (const auto found = find_relay(); !found) return tl::unexpected(found.error());
  auto bridge = Bridge::open(context, zmq::socket_type::pull, {.receive_queue_messages = queue_messages});
  if (!bridge) return tl::unexpected(bridge.error());
  std::vector<std::string> arguments = {"receive",
                                        bridge->address,
                                        config.address,
                                        std::to_string(config.rate_kbit_per_s),
                                        milliseconds(config.receive_window),
                                        std::to_string(config.receive_tpdu)};
  arguments.insert(arguments.end(), subscriptions.begin(), subscriptions.end());
  return std::unique_ptr<EpgmSubscriber>(
      new EpgmSubscriber(std::unique_ptr<Impl>(new Impl{std::move(*bridge), RelayProcess(std::move(arguments))})));
}

bool EpgmSubscriber::receive(BroadcastMessage& message) {
  Frame packed;
  bool more = false;
  while (transport::receive_part(impl_->bridge.socket, packed, more)) {
    if (auto unpacked = unpack_multicast(packed)) {
      message = std::move(*unpacked);
      return true;
    }
    ++malformed_;
  }
  return false;
}

RelayProcess& EpgmSubscriber::relay() { return impl_->relay; }
void* EpgmSubscriber::native_socket() const { return impl_->bridge.socket.handle(); }

}  // namespace fantail
