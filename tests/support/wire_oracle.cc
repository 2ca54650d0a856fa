#include "tests/support/wire_oracle.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "common/wire/codec.h"
#include "common/wire/compression.h"

namespace fantail::test {
namespace {

using namespace wire;  // NOLINT: the one subject of this file
using Bytes = std::span<const std::byte>;

void promise(bool kept, const char* what) {
  if (kept) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}
#define PROMISE(condition) promise(condition, #condition)

bool is_name(const std::string& text) { return text.size() <= kMaxNameBytes; }

void check(const Chunk& m) {
  PROMISE(bool(m.stream));
  PROMISE(m.raw_length <= kMaxChunkBytes);
  PROMISE(m.end() >= m.offset);
}
void check(const FetchData& m) {
  check(m.chunk);
  PROMISE(!m.chunk.sealed);
}
void check(const Beacon& m) {
  PROMISE(is_name(m.name) && is_name(m.control));
  PROMISE(m.heads.size() <= kMaxListEntries);
  for (const Head& h : m.heads) PROMISE(h.sent <= h.head);
}
void check(const Peer& m) {
  PROMISE(bool(m.instance));
  PROMISE(m.role <= Role::kWorker);
  PROMISE(is_name(m.software) && is_name(m.name) && is_name(m.durable_name));
  PROMISE(m.topics.size() <= kMaxListEntries);
  for (const auto& topic : m.topics) PROMISE(topic.size() <= kMaxTopicBytes);
  PROMISE(m.shard_index < m.shard_count);
}
void check(const Streams& m) {
  PROMISE(m.streams.size() <= kMaxListEntries);
  for (const StreamInfo& s : m.streams) {
    PROMISE(bool(s.stream));
    PROMISE(!topic_problem(s.topic));
    PROMISE(s.path.size() <= kMaxPathBytes);
    PROMISE(s.base <= s.head && s.sent <= s.head && s.committed <= s.head);
    PROMISE(s.file.head_length <= kMaxIdentityHeadBytes);
  }
}
void check(const Fetch& m) { PROMISE(!m.range.empty()); }
void check(const Unavailable& m) {
  PROMISE(!m.range.empty());
  PROMISE(m.reason <= LossReason::kArchiveDamaged);
}
void check(const Commit& m) { PROMISE(m.entries.size() <= kMaxListEntries); }
void check(const List&) {}
void check(const FetchEnd&) {}
void check(const Ping&) {}
void check(const Bye&) {}
void check(const wire::Error&) {}
void check(const Request& m) { PROMISE(!m.method.empty() && is_name(m.method) && is_name(m.type)); }
void check(const Reply&) {}
void check(const Failure& m) { PROMISE(is_name(m.type)); }
void check(const wire::Event& m) { PROMISE(is_name(m.channel)); }
void check(const Cancel&) {}

/// `again` encodes a value and decodes the result.
template <class Message, class Again>
bool accepted(const Result<Message>& decoded, Again again) {
  if (!decoded) {
    PROMISE(decoded.error().code == ErrorCode::kCorrupt || decoded.error().code == ErrorCode::kUnsupported);
    PROMISE(!decoded.error().context.empty());
    return false;
  }
  check(*decoded);
  const Result<Message> second = again(*decoded);
  PROMISE(second && *second == *decoded);
  return true;
}

void undo_payload(const Chunk& chunk, Bytes payload) {
  static ChunkDecompressor decompressor;
  const auto raw = decompressor.raw(chunk, payload);
  PROMISE(!raw || raw->size() == chunk.raw_length);
}

}  // namespace

bool decode_and_check(Kind kind, Bytes body, Bytes payload) {
  static Encoder e;
  const auto body_of = [](Bytes header) { return header.subspan(kPrefixBytes); };
  switch (kind) {
    case Kind::kChunk: {
      const auto m = decode_chunk(body, payload);
      if (m) undo_payload(*m, payload);
      return accepted(m, [&](const Chunk& v) { return decode_chunk(body_of(e.chunk(v, {}, payload)), payload); });
    }
    case Kind::kFetchData: {
      const auto m = decode_fetch_data(body, payload);
      if (m) undo_payload(m->chunk, payload);
      return accepted(
          m, [&](const FetchData& v) { return decode_fetch_data(body_of(e.fetch_data(v, payload)), payload); });
    }
    case Kind::kBeacon:
      return accepted(decode_beacon(body), [&](const Beacon& v) { return decode_beacon(body_of(e.beacon(v, {}))); });
    case Kind::kHello:
      return accepted(decode_peer(body), [&](const Peer& v) { return decode_peer(body_of(e.hello(v))); });
    case Kind::kWelcome:
      return accepted(decode_peer(body), [&](const Peer& v) { return decode_peer(body_of(e.welcome(v))); });
    case Kind::kList:
      return accepted(decode_list(body), [&](const List& v) { return decode_list(body_of(e.list(v))); });
    case Kind::kStreams:
      return accepted(decode_streams(body), [&](const Streams& v) { return decode_streams(body_of(e.streams(v))); });
    case Kind::kFetch:
      return accepted(decode_fetch(body), [&](const Fetch& v) { return decode_fetch(body_of(e.fetch(v))); });
    case Kind::kFetchEnd:
      return accepted(decode_fetch_end(body),
                      [&](const FetchEnd& v) { return decode_fetch_end(body_of(e.fetch_end(v))); });
    case Kind::kUnavailable:
      return accepted(decode_unavailable(body),
                      [&](const Unavailable& v) { return decode_unavailable(body_of(e.unavailable(v))); });
    case Kind::kCommit:
      return accepted(decode_commit(body), [&](const Commit& v) { return decode_commit(body_of(e.commit(v))); });
    case Kind::kPing:
      return accepted(decode_ping(body), [&](const Ping& v) { return decode_ping(body_of(e.ping(v))); });
    case Kind::kPong:
      return accepted(decode_ping(body), [&](const Ping& v) { return decode_ping(body_of(e.pong(v))); });
    case Kind::kBye: return accepted(decode_bye(body), [&](const Bye& v) { return decode_bye(body_of(e.bye(v))); });
    case Kind::kError:
      return accepted(decode_error(body), [&](const wire::Error& v) { return decode_error(body_of(e.error(v))); });
    case Kind::kRequest:
      return accepted(decode_request(body, payload),
                      [&](const Request& v) { return decode_request(body_of(e.request(v, payload)), payload); });
    case Kind::kReply:
      return accepted(decode_reply(body, payload),
                      [&](const Reply& v) { return decode_reply(body_of(e.reply(v, payload)), payload); });
    case Kind::kFailure:
      return accepted(decode_failure(body), [&](const Failure& v) { return decode_failure(body_of(e.failure(v))); });
    case Kind::kEvent:
      return accepted(decode_event(body, payload),
                      [&](const wire::Event& v) { return decode_event(body_of(e.event(v, payload)), payload); });
    case Kind::kCancel:
      return accepted(decode_cancel(body), [&](const Cancel& v) { return decode_cancel(body_of(e.cancel(v))); });
  }
  return false;
}

}  // namespace fantail::test
