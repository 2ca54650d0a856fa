#pragma once

#include <memory>
#include <optional>

#include "common/transport/curve_key.h"

namespace fantail {

/// The process's libzmq context with its one I/O thread. Declared before, so destroyed after, every socket made in it.
class Context {
 public:
  Context();
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  /// From now on every socket made in it speaks CURVE with this key, and only with those who have it. Before the first
  /// socket.
  void protect(CurveKey key) { key_ = std::move(key); }
  /// With the key of key_file_of(`key_file`), if there is one.
  Status protect_by(const std::string& key_file);
  const std::optional<CurveKey>& key() const { return key_; }

  void* native() const;  ///< the zmq::context_t, for common/transport

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  std::optional<CurveKey> key_;
};

}  // namespace fantail
