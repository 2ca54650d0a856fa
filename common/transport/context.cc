#include "common/transport/context.h"

#include "common/transport/zmq_socket.h"

namespace fantail {

struct Context::Impl {
  zmq::context_t context{1};
};

Context::Context() : impl_(std::make_unique<Impl>()) {}
Context::~Context() = default;
void* Context::native() const { return &impl_->context; }

}  // namespace fantail
