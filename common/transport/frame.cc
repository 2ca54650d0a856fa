#include "common/transport/frame.h"

#include <zmq.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

namespace fantail {
namespace {

static_assert(sizeof(zmq_msg_t) == 64);
constexpr std::size_t kCopyBelow = 8 * 1024;  // a copy of this size costs less than a buffer kept busy

// libzmq orders what is done before a message is sent before its release on another thread. It is not built for the
// thread sanitizer, which has to be told.
#ifdef __SANITIZE_THREAD__
void lend(void* block) { __tsan_release(block); }
void take_back(void* block) { __tsan_acquire(block); }
#else
void lend(void*) {}
void take_back(void*) {}
#endif

zmq_msg_t* message(const std::byte* storage) { return reinterpret_cast<zmq_msg_t*>(const_cast<std::byte*>(storage)); }

}  // namespace

Frame::Frame() noexcept { zmq_msg_init(message(storage_)); }
Frame::~Frame() { zmq_msg_close(message(storage_)); }
Frame::Frame(Frame&& other) noexcept : Frame() { zmq_msg_move(message(storage_), message(other.storage_)); }
Frame& Frame::operator=(Frame&& other) noexcept {
  if (this != &other) zmq_msg_move(message(storage_), message(other.storage_));
  return *this;
}

Frame Frame::uninitialized(std::size_t bytes) {
  Frame frame;
  zmq_msg_close(message(frame.storage_));
  if (zmq_msg_init_size(message(frame.storage_), bytes) != 0) {
    zmq_msg_init(message(frame.storage_));
    throw std::bad_alloc();
  }
  return frame;
}

Frame Frame::copy_of(std::span<const std::byte> bytes) {
  Frame frame = uninitialized(bytes.size());
  if (!bytes.empty()) std::memcpy(frame.writable().data(), bytes.data(), bytes.size());
  return frame;
}

Frame Frame::copy_of(std::string_view text) { return copy_of(std::as_bytes(std::span(text.data(), text.size()))); }

std::span<const std::byte> Frame::bytes() const {
  auto* m = message(storage_);
  return {static_cast<const std::byte*>(zmq_msg_data(m)), zmq_msg_size(m)};
}

std::string_view Frame::text() const {
  const auto b = bytes();
  return {reinterpret_cast<const char*>(b.data()), b.size()};
}

std::span<std::byte> Frame::writable() {
  auto* m = message(storage_);
  return {static_cast<std::byte*>(zmq_msg_data(m)), zmq_msg_size(m)};
}

struct Block {
  std::shared_ptr<FramePoolShared> home;
  std::byte* data = nullptr;
};

struct FramePoolShared {
  std::size_t buffer_bytes = 0;
  std::size_t keep = 0;
  std::atomic<std::size_t> bytes_out = 0;
  std::mutex mutex;
  std::vector<Block*> idle;

  ~FramePoolShared() {
    for (Block* block : idle) destroy(block);
  }
  static void destroy(Block* block) {
    std::free(block->data);
    delete block;
  }
  /// Any thread. Drops the block's hold on the pool last: an idle block must not keep its own pool alive.
  static void give_back(Block* block) {
    const auto home = std::move(block->home);
    home->bytes_out.fetch_sub(home->buffer_bytes, std::memory_order_relaxed);
    const std::lock_guard lock(home->mutex);
    if (home->idle.size() < home->keep) {
      home->idle.push_back(block);
    } else {
      destroy(block);
    }
  }
};

FramePool::FramePool(std::size_t buffer_bytes, std::size_t keep) : shared_(std::make_shared<FramePoolShared>()) {
  shared_->buffer_bytes = buffer_bytes;
  shared_->keep = keep;
}
FramePool::~FramePool() = default;

FramePool::Buffer::Buffer(Buffer&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
FramePool::Buffer& FramePool::Buffer::operator=(Buffer&& other) noexcept {
  std::swap(block_, other.block_);
  return *this;
}
FramePool::Buffer::~Buffer() {
  if (block_ != nullptr) FramePoolShared::give_back(block_);
}
std::span<std::byte> FramePool::Buffer::bytes() const { return {block_->data, block_->home->buffer_bytes}; }

FramePool::Buffer FramePool::take() {
  Block* block = nullptr;
  {
    const std::lock_guard lock(shared_->mutex);
    if (!shared_->idle.empty()) {
      block = shared_->idle.back();
      shared_->idle.pop_back();
    }
  }
  if (block == nullptr) {
    block = new Block;
    block->data = static_cast<std::byte*>(std::malloc(shared_->buffer_bytes));
    if (block->data == nullptr) {
      delete block;
      throw std::bad_alloc();
    }
  }
  block->home = shared_;
  shared_->bytes_out.fetch_add(shared_->buffer_bytes, std::memory_order_relaxed);
  Buffer buffer;
  buffer.block_ = block;
  return buffer;
}

Frame FramePool::to_frame(Buffer&& buffer, std::size_t size) {
  if (size < kCopyBelow) {
    const Buffer done = std::move(buffer);
    return Frame::copy_of(done.bytes().first(size));
  }
  Frame frame;
  auto* m = static_cast<zmq_msg_t*>(frame.native());
  zmq_msg_close(m);
  const auto release = [](void*, void* hint) {
    take_back(hint);
    FramePoolShared::give_back(static_cast<Block*>(hint));
  };
  lend(buffer.block_);
  if (zmq_msg_init_data(m, buffer.block_->data, size, release, buffer.block_) != 0) {
    zmq_msg_init(m);
    throw std::bad_alloc();
  }
  buffer.block_ = nullptr;
  return frame;
}

std::size_t FramePool::bytes_out() const { return shared_->bytes_out.load(std::memory_order_relaxed); }

}  // namespace fantail
