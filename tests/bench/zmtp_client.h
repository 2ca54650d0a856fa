#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include "common/base/digest.h"
#include "common/wire/codec.h"

namespace fantail::bench {

/// One connection to a control link that speaks ZMTP 3.0 (rfc.zeromq.org/spec/23) by itself: a DEALER without libzmq,
/// with one thread for any number of them, as redis-benchmark speaks redis's protocol. Loopback tcp. Throws.
class ZmtpClient {
 public:
  explicit ZmtpClient(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd_ < 0 || ::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) fail("connect");
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    std::string greeting("\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL", 16);
    greeting.resize(64, '\0');
    using std::string_view_literals::operator""sv;
    write(greeting + std::string("\4\x1c\5READY\x0bSocket-Type\0\0\0\6DEALER"sv));
    while (in_.size() < 64) read();
    in_.erase(0, 64);
    next_frame();  // READY
    wire::Peer self;
    self.role = wire::Role::kClient;
    self.instance = random_id<InstanceId>();
    self.name = "load";
    send(encoder_.hello(self), {});
    if (next_kind() != wire::Kind::kWelcome) throw std::runtime_error("Hello was not answered with Welcome");
  }
  ZmtpClient(const ZmtpClient&) = delete;
  ZmtpClient& operator=(const ZmtpClient&) = delete;
  ~ZmtpClient() { ::close(fd_); }

  int fd() const { return fd_; }

  void request(std::string_view method, std::string_view arguments) {
    const auto payload = as_bytes(arguments);
    send(encoder_.request({++number_, std::string(method), 5000}, payload), arguments);
  }
  /// Blocks until the answer is there; false: it is a failure.
  bool answer() {
    for (;;) {
      const wire::Kind kind = next_kind();
      if (kind == wire::Kind::kReply || kind == wire::Kind::kFailure) return kind == wire::Kind::kReply;
    }
  }

 private:
  [[noreturn]] static void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

  void write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0) fail("send");
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  void read() {
    char buffer[16 * 1024];
    const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
    if (n < 0) fail("recv");
    if (n == 0) throw std::runtime_error("the server has closed the connection");
    in_.append(buffer, static_cast<std::size_t>(n));
  }

  static void add_frame(std::string& out, std::string_view content, bool more) {
    const bool is_long = content.size() > 255;
    out += static_cast<char>((more ? 1 : 0) | (is_long ? 2 : 0));
    for (int shift = is_long ? 56 : 0; shift >= 0; shift -= 8) out += static_cast<char>(content.size() >> shift & 0xff);
    out += content;
  }
  void send(std::span<const std::byte> header, std::string_view payload) {
    out_.clear();
    add_frame(out_, as_text(header), true);
    add_frame(out_, payload, false);
    write(out_);
  }

  std::string next_frame(bool* more = nullptr) {
    const auto need = [&](std::size_t n) {
      while (in_.size() < n) read();
    };
    need(2);
    const auto flags = static_cast<unsigned char>(in_[0]);
    const std::size_t head = (flags & 2) != 0 ? 9 : 2;
    need(head);
    std::size_t size = 0;
    for (std::size_t i = 1; i < head; ++i) size = size << 8 | static_cast<unsigned char>(in_[i]);
    need(head + size);
    std::string content = in_.substr(head, size);
    in_.erase(0, head + size);
    if (more != nullptr) *more = (flags & 1) != 0;
    return content;
  }
  wire::Kind next_kind() {
    bool more = false;
    const std::string header = next_frame(&more);
    const std::string payload = more ? next_frame(&more) : std::string();
    const auto opened = wire::open_envelope({}, as_bytes(header), as_bytes(payload));
    if (!opened) throw std::runtime_error(opened.error().context);
    return opened->kind;
  }

  int fd_;
  std::string in_;
  std::string out_;
  std::uint64_t number_ = 0;
  wire::Encoder encoder_;
};

}  // namespace fantail::bench
