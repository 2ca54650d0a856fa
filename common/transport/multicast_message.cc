#include "common/transport/multicast_message.h"

#include <array>
#include <cstring>

namespace fantail {
namespace {

constexpr std::size_t kTrailerBytes = 8;

void put_u32(std::byte* to, std::size_t value) {
  for (int i = 0; i < 4; ++i) to[i] = static_cast<std::byte>(value >> (8 * i));
}

std::size_t get_u32(const std::byte* from) {
  std::size_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | std::to_integer<std::size_t>(from[i]);
  return value;
}

}  // namespace

Frame pack_multicast(const BroadcastMessage& message) {
  const std::array parts{message.topic.bytes(), message.header.bytes(), message.payload.bytes()};
  Frame packed = Frame::uninitialized(parts[0].size() + parts[1].size() + parts[2].size() + kTrailerBytes);
  std::byte* to = packed.writable().data();
  for (const auto part : parts) {
    if (!part.empty()) std::memcpy(to, part.data(), part.size());
    to += part.size();
  }
  put_u32(to, parts[0].size());
  put_u32(to + 4, parts[1].size());
  return packed;
}

std::optional<BroadcastMessage> unpack_multicast(const Frame& packed) {
  const auto all = packed.bytes();
  if (all.size() < kTrailerBytes) return std::nullopt;
  const auto parts = all.first(all.size() - kTrailerBytes);
  const std::size_t topic_bytes = get_u32(all.data() + parts.size());
  const std::size_t header_bytes = get_u32(all.data() + parts.size() + 4);
  if (topic_bytes > parts.size() || header_bytes > parts.size() - topic_bytes) return std::nullopt;
  return BroadcastMessage{Frame::copy_of(parts.first(topic_bytes)),
                          Frame::copy_of(parts.subspan(topic_bytes, header_bytes)),
                          Frame::copy_of(parts.subspan(topic_bytes + header_bytes))};
}

}  // namespace fantail
