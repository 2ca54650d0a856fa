// The yardstick of scripts/bench-end-to-end: a file through libzmq with nothing around it.
//
//   bare_pipe recv ENDPOINT FILE [--zstd]          binds, writes what comes, ends when all of it is there
//   bare_pipe send FILE ENDPOINT [--zstd LEVEL]    connects, waits for the subscription, sends FILE once
//
// It moves bytes the way fantail does (pread of 256 KiB straight into the message, XPUB with ZMQ_XPUB_NODROP,
// three frames, SUB, pwrite straight out of the message) and leaves out everything that makes them safe: no
// checksums, no beacons, no repair, no cursors, no fsync. What fantail reaches of its speed is the price of its
// guarantees. The numbers below were chosen by measuring: the yardstick has to be fast, or beating it says nothing.

#include <fcntl.h>
#include <malloc.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>
#include <zmq.hpp>

namespace {

constexpr std::size_t kChunkBytes = 256 * 1024;
constexpr int kQueuedMessages = 16;  // each way; more only makes the working set outgrow the CPU's cache
constexpr std::string_view kTopic = "d/bench/";
constexpr std::uint64_t kMagic = 0x3165'7069'7065'7262;  // "brepipe1"

enum class Encoding : std::uint32_t { kNone = 0, kZstd = 1 };

/// Second frame, in the byte order of the machine: both ends run on it.
struct Header {
  std::uint64_t magic = kMagic;
  std::uint64_t offset = 0;
  std::uint64_t total_bytes = 0;  // of the whole file, so that the receiver knows when to end
  std::uint64_t raw_bytes = 0;    // of this chunk, after decompression
  Encoding encoding = Encoding::kNone;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(Header) == 40);

class File {
 public:
  File(const std::string& path, int flags) : path_(path), fd_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
    if (fd_ < 0) fail();
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { ::close(fd_); }

  std::uint64_t size() const {
    struct stat status {};
    if (::fstat(fd_, &status) != 0) fail();
    return static_cast<std::uint64_t>(status.st_size);
  }

  void read_exactly(std::span<std::byte> into, std::uint64_t offset) const {
    while (!into.empty()) {
      const ssize_t got = ::pread(fd_, into.data(), into.size(), static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail();
      if (got == 0) throw std::runtime_error(path_ + ": became shorter while it was sent");
      into = into.subspan(static_cast<std::size_t>(got));
      offset += static_cast<std::uint64_t>(got);
    }
  }

  void write_all(std::span<const std::byte> from, std::uint64_t offset) const {
    while (!from.empty()) {
      const ssize_t put = ::pwrite(fd_, from.data(), from.size(), static_cast<off_t>(offset));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) fail();
      from = from.subspan(static_cast<std::size_t>(put));
      offset += static_cast<std::uint64_t>(put);
    }
  }

 private:
  [[noreturn]] void fail() const { throw std::system_error(errno, std::generic_category(), path_); }

  std::string path_;
  int fd_;
};

using Compressor = std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)>;
using Decompressor = std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)>;

std::size_t checked(std::size_t zstd_result) {
  if (ZSTD_isError(zstd_result) != 0) throw std::runtime_error(std::string("zstd: ") + ZSTD_getErrorName(zstd_result));
  return zstd_result;
}

/// Message-sized blocks come from the heap and stay there. By default glibc maps and unmaps each of them, and the
/// page faults cost more than the copying.
void keep_message_memory() {
  constexpr int kMebi = 1024 * 1024;
  // NOLINTNEXTLINE(concurrency-mt-unsafe): before the first other thread
  if (::mallopt(M_MMAP_THRESHOLD, 16 * kMebi) == 0 || ::mallopt(M_TRIM_THRESHOLD, 256 * kMebi) == 0)
    throw std::runtime_error("mallopt refused its values");
}

void send_file(const std::string& path, const std::string& endpoint, std::optional<int> zstd_level) {
  const File source(path, O_RDONLY);
  const std::uint64_t total = source.size();

  zmq::context_t context(1);
  zmq::socket_t socket(context, zmq::socket_type::xpub);
  socket.set(zmq::sockopt::xpub_nodrop, true);  // a full pipe makes send() wait instead of dropping
  socket.set(zmq::sockopt::sndhwm, kQueuedMessages);
  socket.set(zmq::sockopt::linger, -1);  // leaving waits until the last byte is with the kernel
  socket.connect(endpoint);

  zmq::message_t subscription;
  (void)socket.recv(subscription);

  const Compressor compressor(zstd_level ? ZSTD_createCCtx() : nullptr, &ZSTD_freeCCtx);
  std::vector<std::byte> raw(zstd_level ? kChunkBytes : 0);
  std::vector<std::byte> packed(zstd_level ? ZSTD_compressBound(kChunkBytes) : 0);

  std::uint64_t offset = 0;
  do {  // an empty file is one empty chunk: the receiver has to learn that there is nothing to wait for
    const auto length = static_cast<std::size_t>(std::min<std::uint64_t>(kChunkBytes, total - offset));
    Header header{.offset = offset, .total_bytes = total, .raw_bytes = length};
    zmq::message_t payload;
    if (zstd_level) {
      source.read_exactly(std::span(raw).first(length), offset);
      const std::size_t size =
          checked(ZSTD_compressCCtx(compressor.get(), packed.data(), packed.size(), raw.data(), length, *zstd_level));
      header.encoding = Encoding::kZstd;
      payload.rebuild(packed.data(), size);
    } else {
      payload.rebuild(length);
      source.read_exactly({static_cast<std::byte*>(payload.data()), length}, offset);
    }
    (void)socket.send(zmq::buffer(kTopic), zmq::send_flags::sndmore);
    (void)socket.send(zmq::buffer(&header, sizeof header), zmq::send_flags::sndmore);
    (void)socket.send(std::move(payload), zmq::send_flags::none);
    offset += length;
  } while (offset < total);
}

void receive_file(const std::string& endpoint, const std::string& path, bool expect_zstd) {
  const File target(path, O_WRONLY | O_CREAT | O_TRUNC);

  zmq::context_t context(1);
  zmq::socket_t socket(context, zmq::socket_type::sub);
  socket.set(zmq::sockopt::rcvhwm, kQueuedMessages);
  socket.set(zmq::sockopt::subscribe, kTopic);
  socket.set(zmq::sockopt::linger, 0);
  socket.bind(endpoint);

  const Decompressor decompressor(expect_zstd ? ZSTD_createDCtx() : nullptr, &ZSTD_freeDCtx);
  std::vector<std::byte> raw(expect_zstd ? kChunkBytes : 0);

  zmq::message_t topic;
  zmq::message_t header_frame;
  zmq::message_t payload;
  std::uint64_t received = 0;
  Header header;
  do {
    (void)socket.recv(topic);
    (void)socket.recv(header_frame);
    (void)socket.recv(payload);
    if (header_frame.size() != sizeof header || payload.more()) throw std::runtime_error("a message of unknown shape");
    std::memcpy(&header, header_frame.data(), sizeof header);
    if (header.magic != kMagic || header.raw_bytes > kChunkBytes) throw std::runtime_error("a header of unknown shape");
    if ((header.encoding == Encoding::kZstd) != expect_zstd)
      throw std::runtime_error("one end has --zstd, the other not");

    std::span<const std::byte> bytes(static_cast<const std::byte*>(payload.data()), payload.size());
    if (expect_zstd) {
      const std::size_t size =
          checked(ZSTD_decompressDCtx(decompressor.get(), raw.data(), raw.size(), bytes.data(), bytes.size()));
      bytes = std::span(raw).first(size);
    }
    if (bytes.size() != header.raw_bytes) throw std::runtime_error("a chunk of another length than announced");
    target.write_all(bytes, header.offset);
    received += bytes.size();
  } while (received < header.total_bytes);
}

std::optional<int> parse_int(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

int usage() {
  std::fputs(
      "usage: bare_pipe recv ENDPOINT FILE [--zstd]\n"
      "       bare_pipe send FILE ENDPOINT [--zstd LEVEL]\n",
      stderr);
  return 2;
}

}  // namespace

int main(int argc, char** argv) try {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.size() < 3 || (args.size() > 3 && args[3] != "--zstd")) return usage();
  keep_message_memory();
  if (args[0] == "recv" && args.size() <= 4) {
    receive_file(args[1], args[2], args.size() == 4);
    return 0;
  }
  if (args[0] == "send" && (args.size() == 3 || args.size() == 5)) {
    std::optional<int> level;
    if (args.size() == 5 && !(level = parse_int(args[4]))) return usage();
    send_file(args[1], args[2], level);
    return 0;
  }
  return usage();
} catch (const std::exception& error) {
  std::fprintf(stderr, "bare_pipe: %s\n", error.what());
  return 1;
}
