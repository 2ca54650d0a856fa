#include "common/transport/context.h"

#include "common/transport/waiter.h"
#include "common/transport/zmq_socket.h"

namespace fantail {

struct Context::Impl {
  zmq::context_t context{1};
};

Context::Context() : impl_(std::make_unique<Impl>()) {}
Context::~Context() = default;
void* Context::native() const { return &impl_->context; }

void Waiter::add_socket(void* socket) {
  items_.insert(items_.begin() + static_cast<std::ptrdiff_t>(permanent_++), Item{socket, -1});
}
void Waiter::add_descriptor(int fd) {
  items_.insert(items_.begin() + static_cast<std::ptrdiff_t>(permanent_++), Item{nullptr, fd});
}
void Waiter::add_once(int fd) { items_.push_back({nullptr, fd}); }

void Waiter::wait(Duration timeout) {
  std::vector<zmq::pollitem_t> polled;
  polled.reserve(items_.size());
  for (const Item& item : items_) polled.push_back({item.socket, item.fd, ZMQ_POLLIN, 0});
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(std::max(timeout, Duration::zero()));
  try {
    zmq::poll(polled, ms);
  } catch (const zmq::error_t& e) {
    if (e.num() != EINTR) throw;  // only a closed socket can do this: a broken invariant
  }
  items_.resize(permanent_);
}

}  // namespace fantail
