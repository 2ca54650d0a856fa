#include "common/transport/context.h"

#include "common/transport/zmq_socket.h"

namespace fantail {

struct Context::Impl {
  Impl() {
    // One for each node that is reached by a control link of its own; libzmq's own limit is 1023.
    context.set(zmq::ctxopt::max_sockets, kMaxSockets);
  }
  static constexpr int kMaxSockets = 8192;
  zmq::context_t context{1};
};

Context::Context() : impl_(std::make_unique<Impl>()) {}
Context::~Context() = default;
void* Context::native() const { return &impl_->context; }

}  // namespace fantail
