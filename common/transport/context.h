#pragma once

#include <memory>

namespace fantail {

/// The process's libzmq context with its one I/O thread. Declared before, so destroyed after, every socket made in it.
class Context {
 public:
  Context();
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  void* native() const;  ///< the zmq::context_t, for common/transport

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fantail
