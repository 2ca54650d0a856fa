#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace fantail {

/// One message part: owns its bytes, moved and never copied. A 64-byte wrapper of libzmq's message, so that received
/// bytes are used where libzmq put them and sent bytes are sent from where they were read into.
class Frame {
 public:
  Frame() noexcept;
  ~Frame();
  Frame(Frame&& other) noexcept;
  Frame& operator=(Frame&& other) noexcept;
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;

  static Frame copy_of(std::span<const std::byte> bytes);
  static Frame copy_of(std::string_view text);
  static Frame uninitialized(std::size_t bytes);

  std::span<const std::byte> bytes() const;
  std::string_view text() const;
  std::span<std::byte> writable();  ///< only before the frame was sent or shared
  std::size_t size() const { return bytes().size(); }

  void* native() noexcept { return storage_; }  ///< the zmq_msg_t, for common/transport

 private:
  alignas(void*) std::byte storage_[64];
};

struct Block;
struct FramePoolShared;

/// Buffers for chunk payloads. A buffer taken from here becomes a Frame without a copy and comes back when libzmq has
/// sent its last copy; that happens on libzmq's thread, everything else on the owner's. Bytes that are out are counted,
/// so that senders can be bounded in bytes.
class FramePool {
 public:
  /// `buffer_bytes`: capacity of each; `keep`: how many idle buffers to keep for reuse.
  FramePool(std::size_t buffer_bytes, std::size_t keep);
  ~FramePool();
  FramePool(const FramePool&) = delete;
  FramePool& operator=(const FramePool&) = delete;

  /// A buffer owned by the caller until it is turned into a Frame or destroyed.
  class Buffer {
   public:
    Buffer() = default;
    Buffer(Buffer&& other) noexcept;
    Buffer& operator=(Buffer&& other) noexcept;
    ~Buffer();
    std::span<std::byte> bytes() const;
    explicit operator bool() const { return block_ != nullptr; }

   private:
    friend class FramePool;
    Block* block_ = nullptr;
  };

  Buffer take();
  /// The first `size` bytes of `buffer` as a frame. Small frames are copied, so that they do not keep a whole buffer.
  Frame to_frame(Buffer&& buffer, std::size_t size);
  /// Bytes of buffers taken and not yet returned. Any thread.
  std::size_t bytes_out() const;

 private:
  std::shared_ptr<FramePoolShared> shared_;
};

}  // namespace fantail
