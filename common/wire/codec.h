#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>

#include "common/base/result.h"
#include "common/wire/messages.h"

/// Values to frames and back. Decoders treat every byte as hostile: prefix, digest, schema and limits are checked
/// before a value exists; errors are kTruncated, kCorrupt or kUnsupported (another major version), never an exception.
///
/// Header frame: prefix (16 bytes), then the FlatBuffers body.
///   0..3  magic "FNTL"   4  protocol major   5  kind   6..7  reserved, 0   8..15  digest, little endian
/// The digest is XXH3-64 over: topic frame, prefix bytes 0..7, body, payload frame.
namespace fantail::wire {

inline constexpr std::size_t kPrefixBytes = 16;

/// Builds header frames. Owns one growing buffer: each call's result is valid until the next call. Not thread-safe.
/// `topic` and `payload` enter the digest only; the caller sends them as frames of their own.
class Encoder {
 public:
  using Bytes = std::span<const std::byte>;

  Encoder();
  ~Encoder();
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;

  Bytes chunk(const Chunk& m, std::string_view topic_frame, Bytes payload);
  Bytes beacon(const Beacon& m, std::string_view topic_frame);  ///< on the control link the topic frame is empty
  Bytes hello(const Peer& m);
  Bytes welcome(const Peer& m);
  Bytes list(const List& m);
  Bytes streams(const Streams& m);
  Bytes fetch(const Fetch& m);
  Bytes fetch_data(const FetchData& m, Bytes payload);
  Bytes fetch_end(const FetchEnd& m);
  Bytes unavailable(const Unavailable& m);
  Bytes commit(const Commit& m);
  Bytes ping(const Ping& m);
  Bytes pong(const Ping& m);
  Bytes bye(const Bye& m);
  Bytes error(const Error& m);
  Bytes request(const Request& m, Bytes payload);
  Bytes reply(const Reply& m, Bytes payload);
  Bytes failure(const Failure& m);
  Bytes event(const Event& m, Bytes payload);
  Bytes cancel(const Cancel& m);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A header frame whose prefix and digest hold; its body is not yet looked at.
struct Envelope {
  Kind kind;  ///< may be a kind we do not know: ignore and count it
  std::span<const std::byte> body;
};

/// Checks size, magic, version and digest. Borrows `header`.
Result<Envelope> open_envelope(std::string_view topic_frame, std::span<const std::byte> header,
                               std::span<const std::byte> payload);

/// The major version that a header frame claims, if it begins like one of ours: for the refusal sentence.
std::optional<std::uint8_t> claimed_major(std::span<const std::byte> header);

Result<Chunk> decode_chunk(std::span<const std::byte> body, std::span<const std::byte> payload);
Result<Beacon> decode_beacon(std::span<const std::byte> body);
Result<Peer> decode_peer(std::span<const std::byte> body);
Result<List> decode_list(std::span<const std::byte> body);
Result<Streams> decode_streams(std::span<const std::byte> body);
Result<Fetch> decode_fetch(std::span<const std::byte> body);
Result<FetchData> decode_fetch_data(std::span<const std::byte> body, std::span<const std::byte> payload);
Result<FetchEnd> decode_fetch_end(std::span<const std::byte> body);
Result<Unavailable> decode_unavailable(std::span<const std::byte> body);
Result<Commit> decode_commit(std::span<const std::byte> body);
Result<Ping> decode_ping(std::span<const std::byte> body);
Result<Bye> decode_bye(std::span<const std::byte> body);
Result<Error> decode_error(std::span<const std::byte> body);
Result<Request> decode_request(std::span<const std::byte> body, std::span<const std::byte> payload);
/// The number of a request that decode_request() refuses, where the schema holds: to answer it.
std::optional<std::uint64_t> request_number(std::span<const std::byte> body);
Result<Reply> decode_reply(std::span<const std::byte> body, std::span<const std::byte> payload);
Result<Failure> decode_failure(std::span<const std::byte> body);
Result<Event> decode_event(std::span<const std::byte> body, std::span<const std::byte> payload);
Result<Cancel> decode_cancel(std::span<const std::byte> body);

/// Topic frames: "d/<topic>/" for chunks, "b/<node id>" for beacons, so that prefix subscription follows the hierarchy.
std::string chunk_topic_frame(std::string_view topic);
std::string beacon_topic_frame(NodeId node);
/// The subscription that takes `topic` and everything under it; all topics for an empty one.
std::string topic_subscription(std::string_view topic);
inline constexpr std::string_view kBeaconSubscription = "b/";
/// Whether `topic` is `wanted` or under it; an empty `wanted` takes all.
bool topic_matches(std::string_view wanted, std::string_view topic);
/// Why `topic` cannot be one (empty part, leading or trailing '/', control character, too long), or nothing.
std::optional<std::string> topic_problem(std::string_view topic);

}  // namespace fantail::wire
