#include "tests/support/wire_samples.h"

#include <cstdint>
#include <utility>

#include "common/base/digest.h"
#include "common/wire/compression.h"

namespace fantail::test {
namespace {

using Bytes = std::span<const std::byte>;

constexpr StreamId kStream{0x0011223344556677, 0x8899aabbccddeeff};
constexpr StreamId kOtherStream{0xfedcba9876543210, 0x0123456789abcdef};
constexpr NodeId kNode{0x1111111111111111, 0x2222222222222222};
constexpr InstanceId kInstance{0x3333333333333333, 0x4444444444444444};
constexpr WallTime kTime{1'795'367'045'123'456'789};

std::vector<std::byte> copy(Bytes bytes) { return {bytes.begin(), bytes.end()}; }

/// `decode` takes (body) or (body, payload).
template <class Message, class Decode>
WireSample make(std::string name, wire::Kind kind, const Message& message, Bytes header, Decode decode,
                std::string topic = {}, std::vector<std::byte> payload = {}) {
  const auto is_original = [message, decode](Bytes body, Bytes with) -> Result<bool> {
    if constexpr (std::is_invocable_v<Decode, Bytes, Bytes>) {
      return decode(body, with).map([&](const Message& m) { return m == message; });
    } else {
      return decode(body).map([&](const Message& m) { return m == message; });
    }
  };
  return {std::move(name), kind, std::move(topic), copy(header), std::move(payload), is_original};
}

std::vector<std::byte> compressible() {
  std::string text;
  for (int i = 0; i < 40; ++i) text += "GET /index.html 200\n";
  return copy(as_bytes(text));
}

}  // namespace

std::vector<WireSample> wire_samples() {
  using wire::Kind;
  wire::Encoder e;
  std::vector<WireSample> out;

  const std::string topic = wire::chunk_topic_frame("web/access");
  const auto raw = compressible();
  auto packed = std::vector<std::byte>(raw.size());
  packed.resize(wire::ChunkCompressor(1).compress(raw, packed).value());

  wire::Chunk chunk{kStream, {4096}, static_cast<std::uint32_t>(raw.size()), wire::Encoding::kNone, kTime, true};
  out.push_back(make("Chunk", Kind::kChunk, chunk, e.chunk(chunk, topic, raw), wire::decode_chunk, topic, raw));
  chunk.encoding = wire::Encoding::kZstd;
  out.push_back(
      make("ZstdChunk", Kind::kChunk, chunk, e.chunk(chunk, topic, packed), wire::decode_chunk, topic, packed));

  const wire::Beacon beacon{kNode,   kInstance,
                            "web-1", "tcp://192.0.2.7:5551",
                            17,      {{kStream, {4096}, {5000}, false}, {kOtherStream, {7}, {7}, true}}};
  const std::string beacon_topic = wire::beacon_topic_frame(kNode);
  out.push_back(
      make("Beacon", Kind::kBeacon, beacon, e.beacon(beacon, beacon_topic), wire::decode_beacon, beacon_topic));
  out.push_back(make("ControlBeacon", Kind::kBeacon, beacon, e.beacon(beacon, {}), wire::decode_beacon));

  wire::Peer consumer;
  consumer.role = wire::Role::kConsumer;
  consumer.major = wire::kProtocolMajor;
  consumer.minor = 7;
  consumer.software = "fantail-consumer 0.1.0";
  consumer.instance = kInstance;
  consumer.node = kNode;
  consumer.name = "archive";
  consumer.durable_name = "archive-1";
  consumer.topics = {"web", "mail/in"};
  consumer.shard_index = 2;
  consumer.shard_count = 5;
  out.push_back(make("Hello", Kind::kHello, consumer, e.hello(consumer), wire::decode_peer));
  out.push_back(make("Welcome", Kind::kWelcome, consumer, e.welcome(consumer), wire::decode_peer));

  const wire::List list{17};
  out.push_back(make("List", Kind::kList, list, e.list(list), wire::decode_list));
  const wire::Streams streams{
      {{kStream, 18, "web/access", "/var/log/web/access.log", {1}, {4096}, {5000}, false, kTime},
       {kOtherStream, 19, "mail", "/var/log/mail.log.1", {2}, {7}, {7}, true, {-1}}},
      true,
      true};
  out.push_back(make("Streams", Kind::kStreams, streams, e.streams(streams), wire::decode_streams));
  wire::Streams known = streams;
  known.streams[0].file = {64'769, 1'234'567, 4096, 0xfedcba9876543210};
  known.streams[0].committed = {4000};
  known.streams[1].file = {UINT64_MAX, UINT64_MAX, 7, UINT64_MAX};
  known.streams[1].committed = {7};
  out.push_back(make("KnownStreams", Kind::kStreams, known, e.streams(known), wire::decode_streams));

  const wire::Fetch fetch{5, kStream, {{4096}, {5000}}};
  out.push_back(make("Fetch", Kind::kFetch, fetch, e.fetch(fetch), wire::decode_fetch));
  wire::FetchData data{5,
                       {kStream, {4096}, static_cast<std::uint32_t>(raw.size()), wire::Encoding::kNone, kTime, false}};
  out.push_back(make("FetchData", Kind::kFetchData, data, e.fetch_data(data, raw), wire::decode_fetch_data, {}, raw));
  data.chunk.encoding = wire::Encoding::kZstd;
  out.push_back(
      make("ZstdFetchData", Kind::kFetchData, data, e.fetch_data(data, packed), wire::decode_fetch_data, {}, packed));
  const wire::FetchEnd end{5, kStream, {5000}};
  out.push_back(make("FetchEnd", Kind::kFetchEnd, end, e.fetch_end(end), wire::decode_fetch_end));
  const wire::Unavailable gone{5, kStream, {{4096}, {5000}}, wire::LossReason::kHoldExceeded};
  out.push_back(make("Unavailable", Kind::kUnavailable, gone, e.unavailable(gone), wire::decode_unavailable));

  const wire::Commit commit{{{kStream, {4096}}, {kOtherStream, {7}}}};
  out.push_back(make("Commit", Kind::kCommit, commit, e.commit(commit), wire::decode_commit));
  const wire::Ping ping{42};
  out.push_back(make("Ping", Kind::kPing, ping, e.ping(ping), wire::decode_ping));
  out.push_back(make("Pong", Kind::kPong, ping, e.pong(ping), wire::decode_ping));
  const wire::Bye bye{"shutting down"};
  out.push_back(make("Bye", Kind::kBye, bye, e.bye(bye), wire::decode_bye));
  const wire::Error error{wire::ErrorKind::kHelloRequired, "say Hello first"};
  out.push_back(make("Error", Kind::kError, error, e.error(error), wire::decode_error));

  const auto json = copy(as_bytes(std::string_view(R"({"key":"k","value":[1,null]})")));
  const wire::Request request{7, "set", 5000};
  out.push_back(make("Request", Kind::kRequest, request, e.request(request, json), wire::decode_request, {}, json));
  const wire::Request typed{8, "resize", 0, "images"};
  out.push_back(make("TypedRequest", Kind::kRequest, typed, e.request(typed, json), wire::decode_request, {}, json));
  const wire::Reply reply{7, 3, true};
  out.push_back(make("Reply", Kind::kReply, reply, e.reply(reply, json), wire::decode_reply, {}, json));
  const wire::Failure failure{7, "key_absent", "key 'k' is absent", "store.cc:17"};
  out.push_back(make("Failure", Kind::kFailure, failure, e.failure(failure), wire::decode_failure));
  const wire::Event event{"progress", 9};
  out.push_back(make("Event", Kind::kEvent, event, e.event(event, json), wire::decode_event, {}, json));
  const wire::Cancel cancel{7};
  out.push_back(make("Cancel", Kind::kCancel, cancel, e.cancel(cancel), wire::decode_cancel));
  return out;
}

}  // namespace fantail::test
