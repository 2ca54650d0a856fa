// The limits of docs/protocol.md, at the last value that is allowed and the first that is not.
#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "common/base/digest.h"
#include "common/wire/codec.h"

namespace fantail::wire {
namespace {

using Bytes = std::span<const std::byte>;
using testing::HasSubstr;

constexpr StreamId kStream{1, 2};

/// The smallest table there is: no field present. Root offset 8; at 4 a vtable of 4 bytes for a table of 4 bytes; at 8
/// the table, 4 bytes after its vtable.
constexpr std::array<std::uint8_t, 12> kEmptyTable = {8, 0, 0, 0, 4, 0, 4, 0, 4, 0, 0, 0};

/// A Streams message of version 1.0 as it was before it could tell of files; see
/// StreamsFromBeforeFilesWereToldHaveNone.
constexpr std::array<std::uint8_t, 112> kStreamsWithoutFiles = {
    0x0c, 0x00, 0x00, 0x00, 0x08, 0x00, 0x0c, 0x00, 0x08, 0x00, 0x07, 0x00, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x01, 0x04, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x18, 0x00, 0x00, 0x00, 0x00, 0x00, 0x12, 0x00, 0x2c, 0x00,
    0x04, 0x00, 0x1c, 0x00, 0x14, 0x00, 0x18, 0x00, 0x00, 0x00, 0x00, 0x00, 0x24, 0x00, 0x12, 0x00, 0x00, 0x00, 0x01,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x20, 0x00, 0x00, 0x00,
    0x14, 0x00, 0x00, 0x00, 0x12, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x64, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x02, 0x00, 0x00, 0x00, 0x2f, 0x61, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, 0x77, 0x65, 0x62, 0x00,
};

class WireLimitsTest : public testing::Test {
 protected:
  static Bytes body(Bytes header) { return header.subspan(kPrefixBytes); }
  static Bytes empty_table() { return std::as_bytes(std::span(kEmptyTable)); }

  Result<Chunk> chunk(const Chunk& m, Bytes payload) {
    return decode_chunk(body(encoder.chunk(m, {}, payload)), payload);
  }
  Result<FetchData> fetch_data(const Chunk& m, Bytes payload) {
    return decode_fetch_data(body(encoder.fetch_data({1, m}, payload)), payload);
  }
  Result<Beacon> beacon(const Beacon& m) { return decode_beacon(body(encoder.beacon(m, {}))); }
  Result<Peer> peer(const Peer& m) { return decode_peer(body(encoder.hello(m))); }
  Result<Streams> streams(const Streams& m) { return decode_streams(body(encoder.streams(m))); }
  Result<Streams> stream(const StreamInfo& m) { return streams({{m}, false, false}); }
  Result<Fetch> fetch(ByteRange range) { return decode_fetch(body(encoder.fetch({1, kStream, range}))); }
  Result<Unavailable> unavailable(const Unavailable& m) { return decode_unavailable(body(encoder.unavailable(m))); }

  /// A chunk that is good for `payload`.
  static Chunk chunk_of(Bytes payload) {
    Chunk m;
    m.stream = kStream;
    m.raw_length = static_cast<std::uint32_t>(payload.size());
    return m;
  }
  static Peer good_peer() {
    Peer m;
    m.instance = {1, 2};
    return m;
  }
  static StreamInfo good_stream() {
    StreamInfo m;
    m.stream = kStream;
    m.topic = "web";
    m.head = {100};
    return m;
  }

  Encoder encoder;
};

template <class T>
void expect_refused(const Result<T>& result, ErrorCode code, const std::string& why) {
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, code);
  EXPECT_THAT(result.error().context, HasSubstr(why));
}
template <class T>
void expect_corrupt(const Result<T>& result, const std::string& why) {
  expect_refused(result, ErrorCode::kCorrupt, why);
}

TEST_F(WireLimitsTest, TableWithoutFieldsIsAllDefaultsWhereDefaultsMakeSense) {
  EXPECT_EQ(decode_list(empty_table()), List{});
  EXPECT_EQ(decode_beacon(empty_table()), Beacon{});
  EXPECT_EQ(decode_streams(empty_table()), Streams{});
  EXPECT_EQ(decode_commit(empty_table()), Commit{});
  EXPECT_EQ(decode_ping(empty_table()), Ping{});
  EXPECT_EQ(decode_bye(empty_table()), Bye{});
  EXPECT_EQ(decode_fetch_end(empty_table()), FetchEnd{});
  const auto error = decode_error(empty_table());
  ASSERT_TRUE(error);
  EXPECT_EQ(static_cast<int>(error->code), 0);
  EXPECT_EQ(error->message, "");
}

TEST_F(WireLimitsTest, TableWithoutFieldsIsRefusedWhereAFieldIsRequired) {
  expect_corrupt(decode_chunk(empty_table(), {}), "no stream id");
  expect_corrupt(decode_fetch_data(empty_table(), {}), "no stream id");
  expect_corrupt(decode_peer(empty_table()), "no instance id");
  expect_corrupt(decode_fetch(empty_table()), "empty range");
  expect_corrupt(decode_unavailable(empty_table()), "empty range");
}

TEST_F(WireLimitsTest, ChunkHasAStream) {
  const auto payload = as_bytes("x");
  Chunk m = chunk_of(payload);
  m.stream = {};
  expect_corrupt(chunk(m, payload), "Chunk: no stream id");
  expect_corrupt(fetch_data(m, payload), "FetchData: no stream id");
}

TEST_F(WireLimitsTest, ChunkHasAtMostOneMebibyteOfRawBytes) {
  std::vector<std::byte> payload(kMaxChunkBytes);
  EXPECT_TRUE(chunk(chunk_of(payload), payload));
  EXPECT_TRUE(fetch_data(chunk_of(payload), payload));
  payload.push_back({});
  expect_corrupt(chunk(chunk_of(payload), payload), "raw length over the limit");
  expect_corrupt(fetch_data(chunk_of(payload), payload), "raw length over the limit");
}

TEST_F(WireLimitsTest, CompressedChunkAnnouncesAtMostOneMebibyteToo) {
  const auto payload = as_bytes("tiny");
  Chunk m = chunk_of(payload);
  m.encoding = Encoding::kZstd;
  m.raw_length = kMaxChunkBytes;
  EXPECT_TRUE(chunk(m, payload));
  m.raw_length = kMaxChunkBytes + 1;
  expect_corrupt(chunk(m, payload), "raw length over the limit");
  m.raw_length = UINT32_MAX;
  expect_corrupt(chunk(m, payload), "raw length over the limit");
}

TEST_F(WireLimitsTest, ChunkEndsBeforeOffsetsDo) {
  const auto payload = as_bytes("0123456789");
  Chunk m = chunk_of(payload);
  m.offset = {UINT64_MAX - payload.size()};
  ASSERT_TRUE(chunk(m, payload));
  EXPECT_EQ(chunk(m, payload)->end().raw, UINT64_MAX);
  m.offset = m.offset + 1;
  expect_corrupt(chunk(m, payload), "offset overflows");
  expect_corrupt(fetch_data(m, payload), "offset overflows");
  m.offset = {UINT64_MAX};
  expect_corrupt(chunk(m, payload), "offset overflows");
}

TEST_F(WireLimitsTest, PlainPayloadIsAsLongAsAnnounced) {
  const auto payload = as_bytes("0123456789");
  for (const std::uint32_t announced : {0u, 9u, 11u, 1000u}) {
    Chunk m = chunk_of(payload);
    m.raw_length = announced;
    expect_corrupt(chunk(m, payload), "payload and raw length differ");
    expect_corrupt(fetch_data(m, payload), "payload and raw length differ");
  }
  EXPECT_TRUE(chunk(chunk_of({}), {})) << "a chunk of nothing may say that the stream is sealed";
}

TEST_F(WireLimitsTest, CompressedPayloadIsSmallerThanWhatItHolds) {
  const auto payload = as_bytes("0123456789");
  Chunk m = chunk_of(payload);
  m.encoding = Encoding::kZstd;
  for (const std::uint32_t announced : {0u, 9u, 10u}) {
    m.raw_length = announced;
    expect_corrupt(chunk(m, payload), "compressed payload is not smaller than raw");
  }
  m.raw_length = 11;
  EXPECT_TRUE(chunk(m, payload));
}

TEST_F(WireLimitsTest, EncodingThatWeDoNotKnowIsUnsupported) {
  const auto payload = as_bytes("x");
  Chunk m = chunk_of(payload);
  m.encoding = static_cast<Encoding>(2);
  expect_refused(chunk(m, payload), ErrorCode::kUnsupported, "unknown encoding");
  expect_refused(fetch_data(m, payload), ErrorCode::kUnsupported, "unknown encoding");
}

TEST_F(WireLimitsTest, BeaconNeverSaysMoreWasSentThanThereIs) {
  Beacon m;
  m.heads = {{kStream, {100}, {100}, false}};
  EXPECT_EQ(beacon(m), m);
  m.heads[0].sent = {101};
  expect_corrupt(beacon(m), "sent past its head");
}

TEST_F(WireLimitsTest, BeaconHasBoundedNamesAndHeads) {
  Beacon m;
  m.name = std::string(kMaxNameBytes, 'n');
  m.control = std::string(kMaxNameBytes, 'c');
  m.heads.assign(kMaxListEntries, Head{kStream, {1}, {2}, false});
  EXPECT_EQ(beacon(m), m);
  Beacon long_name = m;
  long_name.name += 'n';
  expect_corrupt(beacon(long_name), "over a limit");
  Beacon long_control = m;
  long_control.control += 'c';
  expect_corrupt(beacon(long_control), "over a limit");
  m.heads.push_back(m.heads[0]);
  expect_corrupt(beacon(m), "over a limit");
}

TEST_F(WireLimitsTest, FullListsOfFixedSizeEntriesFitIntoAHeaderFrame) {
  Beacon m;
  m.name = std::string(kMaxNameBytes, 'n');
  m.control = std::string(kMaxNameBytes, 'c');
  m.heads.assign(kMaxListEntries, Head{kStream, {1}, {2}, false});
  EXPECT_LE(encoder.beacon(m, {}).size(), kMaxHeaderBytes);
  EXPECT_LE(encoder.commit({std::vector<CommitEntry>(kMaxListEntries)}).size(), kMaxHeaderBytes);
}

TEST_F(WireLimitsTest, PeerHasAnInstance) {
  Peer m = good_peer();
  EXPECT_EQ(peer(m), m);
  m.instance = {};
  expect_corrupt(peer(m), "no instance id");
}

TEST_F(WireLimitsTest, PeerHasBoundedNamesAndTopics) {
  const std::string most(kMaxNameBytes, 'n');
  const std::string too_much = most + 'n';
  Peer m = good_peer();
  m.software = m.name = m.durable_name = most;
  m.topics.assign(kMaxListEntries, "t");
  m.topics[0] = std::string(kMaxTopicBytes, 't');
  EXPECT_EQ(peer(m), m);
  for (std::string Peer::*const field : {&Peer::software, &Peer::name, &Peer::durable_name}) {
    Peer over = m;
    over.*field = too_much;
    expect_corrupt(peer(over), "over a limit");
  }
  Peer long_topic = m;
  long_topic.topics[0] += 't';
  expect_corrupt(peer(long_topic), "topic over the limit");
  m.topics.push_back("t");
  expect_corrupt(peer(m), "over a limit");
}

TEST_F(WireLimitsTest, PeerTakesAShareThatExists) {
  Peer m = good_peer();
  m.shard_index = 6;
  m.shard_count = 7;
  EXPECT_EQ(peer(m), m);
  m.shard_index = 7;
  expect_corrupt(peer(m), "shard index");
  m.shard_index = m.shard_count = 0;
  expect_corrupt(peer(m), "shard index");
}

TEST_F(WireLimitsTest, RoleThatWeDoNotKnowIsUnsupported) {
  Peer m = good_peer();
  m.role = static_cast<Role>(4);
  expect_refused(peer(m), ErrorCode::kUnsupported, "unknown role");
}

TEST_F(WireLimitsTest, ListedStreamHasAnId) {
  StreamInfo m = good_stream();
  EXPECT_TRUE(stream(m));
  m.stream = {};
  expect_corrupt(stream(m), "no stream id");
}

TEST_F(WireLimitsTest, ListedStreamHasATopicThatCanBeSubscribedTo) {
  for (const std::string topic : {"", "/web", "web/", "a//b", "a\nb"}) {
    StreamInfo m = good_stream();
    m.topic = topic;
    expect_corrupt(stream(m), "bad path or topic");
  }
  StreamInfo m = good_stream();
  m.topic = std::string(kMaxTopicBytes, 't');
  EXPECT_TRUE(stream(m));
  m.topic += 't';
  expect_corrupt(stream(m), "bad path or topic");
}

TEST_F(WireLimitsTest, ListedStreamHasABoundedPath) {
  StreamInfo m = good_stream();
  m.path = "/" + std::string(kMaxPathBytes - 1, 'p');
  EXPECT_TRUE(stream(m));
  m.path += 'p';
  expect_corrupt(stream(m), "bad path or topic");
}

TEST_F(WireLimitsTest, PathIsPassedOnAsItIsAndStaysHostile) {
  StreamInfo m = good_stream();
  m.path = std::string("../../etc/passwd\n\0x", 19);
  const auto decoded = stream(m);
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->streams[0].path, m.path);
}

TEST_F(WireLimitsTest, ListedStreamBeginsAndWasSentUpToItsHeadAtMost) {
  StreamInfo m = good_stream();
  m.base = m.sent = m.head;
  EXPECT_TRUE(stream(m));
  StreamInfo base_past = m;
  base_past.base = m.head + 1;
  expect_corrupt(stream(base_past), "base or sent past the head");
  m.sent = m.head + 1;
  expect_corrupt(stream(m), "base or sent past the head");
}

TEST_F(WireLimitsTest, ListedStreamIsCommittedUpToItsHeadAtMost) {
  StreamInfo m = good_stream();
  m.committed = m.head;
  EXPECT_TRUE(stream(m));
  m.committed = m.head + 1;
  expect_corrupt(stream(m), "committed past the head");
}

TEST_F(WireLimitsTest, ListedStreamIsKnownByItsFirst4096BytesAtMost) {
  StreamInfo m = good_stream();
  m.file = {UINT64_MAX, UINT64_MAX, 4096, UINT64_MAX};
  const auto decoded = stream(m);
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->streams[0].file, m.file);
  m.file.head_length = 4097;
  expect_corrupt(stream(m), "head length over the limit");
}

TEST_F(WireLimitsTest, StreamsFromBeforeFilesWereToldHaveNone) {
  // What a sender of that time made of {stream, sequence 18, topic "web", path "/a", head 100}.
  const Bytes old = std::as_bytes(std::span(kStreamsWithoutFiles));
  StreamInfo m = good_stream();
  m.sequence = 18;
  m.path = "/a";
  EXPECT_EQ(decode_streams(old), (Streams{{m}, true, false}));
  const auto now = body(encoder.streams({{m}, true, false}));
  EXPECT_TRUE(std::equal(now.begin(), now.end(), old.begin(), old.end())) << "what is not told takes no room";
}

TEST_F(WireLimitsTest, OneBadStreamMakesTheWholeListBad) {
  Streams m{{good_stream(), good_stream()}, true, false};
  EXPECT_EQ(streams(m), m);
  m.streams[1].topic = "";
  EXPECT_FALSE(streams(m));
}

TEST_F(WireLimitsTest, ListOfStreamsIsBounded) {
  Streams m;
  m.streams.assign(kMaxListEntries, good_stream());
  EXPECT_EQ(streams(m), m);
  m.streams.push_back(good_stream());
  EXPECT_FALSE(streams(m));
}

TEST_F(WireLimitsTest, FetchAsksForSomething) {
  EXPECT_TRUE(fetch({{0}, {1}}));
  EXPECT_TRUE(fetch({{0}, {UINT64_MAX}}));
  expect_corrupt(fetch({{1}, {1}}), "empty range");
  expect_corrupt(fetch({{2}, {1}}), "empty range");
}

TEST_F(WireLimitsTest, UnavailableNamesARange) {
  EXPECT_TRUE(unavailable({1, kStream, {{0}, {1}}, LossReason::kDeleted}));
  expect_corrupt(unavailable({1, kStream, {{1}, {1}}, LossReason::kDeleted}), "empty range");
  expect_corrupt(unavailable({1, kStream, {{2}, {1}}, LossReason::kDeleted}), "empty range");
}

TEST_F(WireLimitsTest, ReasonThatWeDoNotKnowIsReadAsUnknown) {
  const auto m = unavailable({1, kStream, {{0}, {1}}, static_cast<LossReason>(7)});
  ASSERT_TRUE(m);
  EXPECT_EQ(m->reason, LossReason::kUnknown);
}

TEST_F(WireLimitsTest, CommitIsBounded) {
  Commit m{std::vector<CommitEntry>(kMaxListEntries, CommitEntry{kStream, {1}})};
  EXPECT_EQ(decode_commit(body(encoder.commit(m))), m);
  m.entries.push_back(m.entries[0]);
  expect_corrupt(decode_commit(body(encoder.commit(m))), "over a limit");
}

/// A Commit with one entry, put together by hand: root offset, padding, vtable of one field at 4; the table with the
/// distance to its list; then the list, moved back by `shift` bytes.
std::vector<std::byte> commit_with_list_at(std::uint8_t shift) {
  std::vector<std::uint8_t> body = {12, 0, 0, 0, 0, 0, 6, 0, 8, 0, 4, 0, 6, 0, 0, 0};
  const auto append = [&](std::initializer_list<std::uint8_t> bytes) { body.insert(body.end(), bytes); };
  append({static_cast<std::uint8_t>(4 + shift), 0, 0, 0});
  body.resize(body.size() + shift);
  append({1, 0, 0, 0});               // entries
  append({1, 0, 0, 0, 0, 0, 0, 0});   // stream.hi
  append({2, 0, 0, 0, 0, 0, 0, 0});   // stream.lo
  append({99, 0, 0, 0, 0, 0, 0, 0});  // offset
  const auto bytes = std::as_bytes(std::span(body));
  return {bytes.begin(), bytes.end()};
}

TEST_F(WireLimitsTest, EntriesLieWhereTheyMayBeReadAsWords) {
  EXPECT_EQ(decode_commit(commit_with_list_at(0)), (Commit{{{kStream, {99}}}}));
  expect_corrupt(decode_commit(commit_with_list_at(4)), "not aligned");
}

TEST_F(WireLimitsTest, ErrorCodeThatWeDoNotKnowKeepsItsNumberAndSentence) {
  const Error m{static_cast<ErrorKind>(999), "new kind of trouble"};
  EXPECT_EQ(decode_error(body(encoder.error(m))), m);
}

TEST_F(WireLimitsTest, TextMayHoldAnyBytes) {
  const std::string odd("\0\n\xff\xfe", 4);
  EXPECT_EQ(decode_bye(body(encoder.bye({odd}))), Bye{odd});
  Peer m = good_peer();
  m.name = odd;
  EXPECT_EQ(peer(m), m);
}

TEST_F(WireLimitsTest, EncoderStartsAfreshForEachMessage) {
  Peer m = good_peer();
  m.name = "name";
  const std::vector<std::byte> first(encoder.hello(m).begin(), encoder.hello(m).end());
  encoder.streams({{good_stream()}, true, true});
  const auto again = encoder.hello(m);
  EXPECT_EQ(std::vector<std::byte>(again.begin(), again.end()), first);
}

}  // namespace
}  // namespace fantail::wire
