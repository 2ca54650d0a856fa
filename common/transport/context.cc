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

Status Context::protect_by(const std::string& key_file) {
  const std::string file = key_file_of(key_file);
  if (file.empty()) return {};
  auto key = CurveKey::load(file);
  if (!key) return tl::unexpected(key.error());
  protect(std::move(*key));
  return {};
}

Context::Context() : impl_(std::make_unique<Impl>()) {}
Context::~Context() = default;
void* Context::native() const { return &impl_->context; }

}  // namespace fantail
