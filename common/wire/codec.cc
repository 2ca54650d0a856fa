#include "common/wire/codec.h"

#include <array>
#include <cstring>

#include "common/base/digest.h"
#include "fantail_generated.h"

namespace fantail::wire {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::array<char, 4> kMagic = {'F', 'N', 'T', 'L'};
constexpr std::size_t kDigestAt = 8;

fb::Id pack(std::uint64_t hi, std::uint64_t lo) { return {hi, lo}; }
template <class Tag>
fb::Id pack(const Id128<Tag>& id) {
  return pack(id.hi, id.lo);
}
/// Absent means zero, as with every FlatBuffers default.
template <class Id>
Id unpack(const fb::Id* id) {
  return id == nullptr ? Id{} : Id{id->hi(), id->lo()};
}
std::string_view view(const flatbuffers::String* text) {
  return text == nullptr ? std::string_view{} : std::string_view{text->data(), text->size()};
}

tl::unexpected<fantail::Error> corrupt(std::string what) { return fail(ErrorCode::kCorrupt, std::move(what)); }

/// The body at an address that FlatBuffers may read words from. libzmq hands out messages at any address, so a body may
/// have to be copied; the copy is valid until the next message is decoded on this thread.
Bytes aligned(Bytes body) {
  if (reinterpret_cast<std::uintptr_t>(body.data()) % alignof(std::uint64_t) == 0) return body;
  static thread_local std::vector<std::uint64_t> scratch;
  scratch.resize(body.size() / sizeof(std::uint64_t) + 1);
  std::memcpy(scratch.data(), body.data(), body.size());
  return std::as_bytes(std::span(scratch)).first(body.size());
}

/// A verified table, or why there is none. Valid until the next message is decoded on this thread.
template <class Table>
Result<const Table*> root(Bytes unaligned, const char* name) {
  const Bytes body = aligned(unaligned);
  // Deep nesting and huge table counts have no use in this schema; refusing them bounds the verifier's work.
  flatbuffers::Verifier verifier(reinterpret_cast<const std::uint8_t*>(body.data()), body.size(), 8,
                                 3 * kMaxListEntries);
  if (!verifier.VerifyBuffer<Table>(nullptr)) return corrupt(std::string(name) + ": body does not follow the schema");
  return flatbuffers::GetRoot<Table>(body.data());
}

bool name_too_long(const flatbuffers::String* text) { return view(text).size() > kMaxNameBytes; }

template <class Vector>
bool list_too_long(const Vector* list) {
  return list != nullptr && list->size() > kMaxListEntries;
}

/// FlatBuffers verifies the bounds of a vector of structs, but not that its elements lie where they may be read as
/// words.
template <class Struct>
bool misplaced(const flatbuffers::Vector<const Struct*>* list) {
  return list != nullptr && list->size() > 0 && reinterpret_cast<std::uintptr_t>(list->Data()) % alignof(Struct) != 0;
}

/// Frames are far smaller than what this can tell.
std::uint32_t size_of(Bytes payload) { return static_cast<std::uint32_t>(payload.size()); }

/// The fields that Chunk and FetchData share, with every limit applied.
template <class Table>
Result<Chunk> chunk_fields(const Table* t, Bytes payload, const char* name) {
  Chunk m;
  m.stream = unpack<StreamId>(t->stream());
  m.offset = {t->offset()};
  m.raw_length = t->raw_length();
  m.encoding = static_cast<Encoding>(t->encoding());
  m.read_time = {t->read_time_ns()};
  if (!m.stream) return corrupt(std::string(name) + ": no stream id");
  if (m.raw_length > kMaxChunkBytes) return corrupt(std::string(name) + ": raw length over the limit");
  if (m.raw_length > UINT64_MAX - m.offset.raw) return corrupt(std::string(name) + ": offset overflows");
  switch (m.encoding) {
    case Encoding::kNone:
      if (payload.size() != m.raw_length) return corrupt(std::string(name) + ": payload and raw length differ");
      break;
    case Encoding::kZstd:
      if (payload.size() >= m.raw_length)
        return corrupt(std::string(name) + ": compressed payload is not smaller than raw");
      break;
    default: return fail(ErrorCode::kUnsupported, std::string(name) + ": unknown encoding");
  }
  return m;
}

}  // namespace

struct Encoder::Impl {
  flatbuffers::FlatBufferBuilder builder{1024};
  std::vector<std::byte> frame;

  flatbuffers::FlatBufferBuilder& fresh() {
    builder.Clear();
    return builder;
  }

  template <class Table>
  Bytes finish(Kind kind, flatbuffers::Offset<Table> table, std::string_view topic = {}, Bytes payload = {}) {
    builder.Finish(table);
    const Bytes body = std::as_bytes(std::span(builder.GetBufferPointer(), builder.GetSize()));
    frame.resize(kPrefixBytes + body.size());
    std::memset(frame.data(), 0, kPrefixBytes);
    std::memcpy(frame.data(), kMagic.data(), kMagic.size());
    frame[4] = std::byte{kProtocolMajor};
    frame[5] = static_cast<std::byte>(kind);
    std::memcpy(frame.data() + kPrefixBytes, body.data(), body.size());
    const std::uint64_t sum = flatbuffers::EndianScalar(
        digest({as_bytes(topic), Bytes(frame).first(kDigestAt), Bytes(frame).subspan(kPrefixBytes), payload}));
    std::memcpy(frame.data() + kDigestAt, &sum, sizeof sum);
    return frame;
  }

  Bytes peer(Kind kind, const Peer& m) {
    auto& b = fresh();
    const auto software = b.CreateString(m.software);
    const auto name = b.CreateString(m.name);
    const auto durable = b.CreateString(m.durable_name);
    const auto topics = b.CreateVectorOfStrings(m.topics);
    const auto instance = pack(m.instance);
    const auto node = pack(m.node);
    return finish(kind, fb::CreatePeer(b, static_cast<fb::Role>(m.role), m.major, m.minor, software, &instance, &node,
                                       name, durable, topics, m.shard_index, m.shard_count));
  }
};

Encoder::Encoder() : impl_(std::make_unique<Impl>()) {}
Encoder::~Encoder() = default;

Bytes Encoder::chunk(const Chunk& m, std::string_view topic_frame, Bytes payload) {
  auto& b = impl_->fresh();
  const auto stream = pack(m.stream);
  const auto table = fb::CreateChunk(b, &stream, m.offset.raw, m.raw_length, static_cast<fb::Encoding>(m.encoding),
                                     m.read_time.ns, m.sealed);
  return impl_->finish(Kind::kChunk, table, topic_frame, payload);
}

Bytes Encoder::beacon(const Beacon& m, std::string_view topic_frame) {
  auto& b = impl_->fresh();
  std::vector<fb::Head> heads;
  heads.reserve(m.heads.size());
  for (const Head& h : m.heads) heads.emplace_back(pack(h.stream), h.sent.raw, h.head.raw, h.sealed);
  const auto name = b.CreateString(m.name);
  const auto control = b.CreateString(m.control);
  const auto list = b.CreateVectorOfStructs(heads);
  const auto node = pack(m.node);
  const auto instance = pack(m.instance);
  return impl_->finish(Kind::kBeacon, fb::CreateBeacon(b, &node, &instance, name, control, m.registry_version, list),
                       topic_frame);
}

Bytes Encoder::hello(const Peer& m) { return impl_->peer(Kind::kHello, m); }
Bytes Encoder::welcome(const Peer& m) { return impl_->peer(Kind::kWelcome, m); }

Bytes Encoder::list(const List& m) {
  auto& b = impl_->fresh();
  return impl_->finish(Kind::kList, fb::CreateList(b, m.after));
}

Bytes Encoder::streams(const Streams& m) {
  auto& b = impl_->fresh();
  std::vector<flatbuffers::Offset<fb::StreamInfo>> list;
  list.reserve(m.streams.size());
  for (const StreamInfo& s : m.streams) {
    const auto topic = b.CreateString(s.topic);
    const auto path = b.CreateString(s.path);
    const auto stream = pack(s.stream);
    list.push_back(fb::CreateStreamInfo(b, &stream, s.sequence, topic, path, s.base.raw, s.sent.raw, s.head.raw,
                                        s.sealed, s.first_seen.ns, s.file.device, s.file.inode, s.file.head_length,
                                        s.file.head_digest, s.committed.raw));
  }
  const auto vector = b.CreateVector(list);
  return impl_->finish(Kind::kStreams, fb::CreateStreams(b, vector, m.listing, m.more));
}

Bytes Encoder::fetch(const Fetch& m) {
  auto& b = impl_->fresh();
  const auto stream = pack(m.stream);
  return impl_->finish(Kind::kFetch, fb::CreateFetch(b, m.request, &stream, m.range.from.raw, m.range.to.raw, m.lost));
}

Bytes Encoder::fetch_data(const FetchData& m, Bytes payload) {
  auto& b = impl_->fresh();
  const auto stream = pack(m.chunk.stream);
  const auto table = fb::CreateFetchData(b, m.request, &stream, m.chunk.offset.raw, m.chunk.raw_length,
                                         static_cast<fb::Encoding>(m.chunk.encoding), m.chunk.read_time.ns);
  return impl_->finish(Kind::kFetchData, table, {}, payload);
}

Bytes Encoder::fetch_end(const FetchEnd& m) {
  auto& b = impl_->fresh();
  const auto stream = pack(m.stream);
  return impl_->finish(Kind::kFetchEnd, fb::CreateFetchEnd(b, m.request, &stream, m.to.raw));
}

Bytes Encoder::unavailable(const Unavailable& m) {
  auto& b = impl_->fresh();
  const auto stream = pack(m.stream);
  return impl_->finish(Kind::kUnavailable,
                       fb::CreateUnavailable(b, m.request, &stream, m.range.from.raw, m.range.to.raw,
                                             static_cast<fb::LossReason>(m.reason)));
}

Bytes Encoder::commit(const Commit& m) {
  auto& b = impl_->fresh();
  std::vector<fb::CommitEntry> entries;
  entries.reserve(m.entries.size());
  for (const CommitEntry& e : m.entries) entries.emplace_back(pack(e.stream), e.offset.raw);
  const auto list = b.CreateVectorOfStructs(entries);
  return impl_->finish(Kind::kCommit, fb::CreateCommit(b, list));
}

Bytes Encoder::ping(const Ping& m) {
  auto& b = impl_->fresh();
  return impl_->finish(Kind::kPing, fb::CreatePing(b, m.nonce));
}

Bytes Encoder::pong(const Ping& m) {
  auto& b = impl_->fresh();
  return impl_->finish(Kind::kPong, fb::CreatePing(b, m.nonce));
}

Bytes Encoder::bye(const Bye& m) {
  auto& b = impl_->fresh();
  const auto reason = b.CreateString(m.reason);
  return impl_->finish(Kind::kBye, fb::CreateBye(b, reason));
}

Bytes Encoder::error(const Error& m) {
  auto& b = impl_->fresh();
  const auto message = b.CreateString(m.message);
  return impl_->finish(Kind::kError, fb::CreateError(b, static_cast<std::uint16_t>(m.code), message));
}

Bytes Encoder::request(const Request& m, Bytes payload) {
  auto& b = impl_->fresh();
  const auto method = b.CreateString(m.method);
  const auto type = m.type.empty() ? flatbuffers::Offset<flatbuffers::String>() : b.CreateString(m.type);
  return impl_->finish(Kind::kRequest, fb::CreateRequest(b, m.request, method, m.timeout_ms, size_of(payload), type),
                       {}, payload);
}

Bytes Encoder::reply(const Reply& m, Bytes payload) {
  auto& b = impl_->fresh();
  return impl_->finish(Kind::kReply, fb::CreateReply(b, m.request, m.sequence, m.partial, size_of(payload)), {},
                       payload);
}

Bytes Encoder::failure(const Failure& m) {
  auto& b = impl_->fresh();
  const auto type = b.CreateString(m.type);
  const auto message = b.CreateString(m.message);
  const auto trace = b.CreateString(m.trace);
  return impl_->finish(Kind::kFailure, fb::CreateFailure(b, m.request, type, message, trace));
}

Bytes Encoder::event(const Event& m, Bytes payload) {
  auto& b = impl_->fresh();
  const auto channel = b.CreateString(m.channel);
  return impl_->finish(Kind::kEvent, fb::CreateEvent(b, channel, m.sequence, size_of(payload)), {}, payload);
}

Bytes Encoder::cancel(const Cancel& m) {
  auto& b = impl_->fresh();
  return impl_->finish(Kind::kCancel, fb::CreateCancel(b, m.request));
}

std::optional<std::uint8_t> claimed_major(Bytes header) {
  if (header.size() < kPrefixBytes || std::memcmp(header.data(), kMagic.data(), kMagic.size()) != 0)
    return std::nullopt;
  return static_cast<std::uint8_t>(header[4]);
}

Result<Envelope> open_envelope(std::string_view topic_frame, Bytes header, Bytes payload) {
  if (header.size() < kPrefixBytes) return fail(ErrorCode::kTruncated, "header frame shorter than its prefix");
  if (header.size() > kMaxHeaderBytes) return corrupt("header frame over the limit");
  const auto major = claimed_major(header);
  if (!major) return corrupt("no fantail message: magic bytes differ");
  if (*major != kProtocolMajor) {
    return fail(ErrorCode::kUnsupported, "peer speaks protocol version " + std::to_string(*major) +
                                             ", this is version " + std::to_string(kProtocolMajor));
  }
  std::uint64_t claimed = 0;
  std::memcpy(&claimed, header.data() + kDigestAt, sizeof claimed);
  const Bytes body = header.subspan(kPrefixBytes);
  if (flatbuffers::EndianScalar(claimed) != digest({as_bytes(topic_frame), header.first(kDigestAt), body, payload})) {
    return corrupt("digest differs");
  }
  return Envelope{static_cast<Kind>(header[5]), body};
}

Result<Chunk> decode_chunk(Bytes body, Bytes payload) {
  const auto t = root<fb::Chunk>(body, "Chunk");
  if (!t) return tl::unexpected(t.error());
  auto m = chunk_fields(*t, payload, "Chunk");
  if (m) m->sealed = (*t)->sealed();
  return m;
}

Result<FetchData> decode_fetch_data(Bytes body, Bytes payload) {
  const auto t = root<fb::FetchData>(body, "FetchData");
  if (!t) return tl::unexpected(t.error());
  const auto chunk = chunk_fields(*t, payload, "FetchData");
  if (!chunk) return tl::unexpected(chunk.error());
  return FetchData{(*t)->request(), *chunk};
}

Result<Beacon> decode_beacon(Bytes body) {
  const auto t = root<fb::Beacon>(body, "Beacon");
  if (!t) return tl::unexpected(t.error());
  const fb::Beacon* b = *t;
  if (name_too_long(b->name()) || name_too_long(b->control()) || list_too_long(b->heads())) {
    return corrupt("Beacon: over a limit");
  }
  if (misplaced(b->heads())) return corrupt("Beacon: heads are not aligned");
  Beacon m;
  m.node = unpack<NodeId>(b->node());
  m.instance = unpack<InstanceId>(b->instance());
  m.name = view(b->name());
  m.control = view(b->control());
  m.registry_version = b->registry_version();
  if (b->heads() != nullptr) {
    m.heads.reserve(b->heads()->size());
    for (const fb::Head* h : *b->heads()) {
      if (h->sent() > h->head()) return corrupt("Beacon: sent past its head");
      m.heads.push_back({unpack<StreamId>(&h->stream()), {h->sent()}, {h->head()}, h->sealed()});
    }
  }
  return m;
}

Result<Peer> decode_peer(Bytes body) {
  const auto t = root<fb::Peer>(body, "Peer");
  if (!t) return tl::unexpected(t.error());
  const fb::Peer* p = *t;
  if (name_too_long(p->software()) || name_too_long(p->name()) || name_too_long(p->durable_name()) ||
      list_too_long(p->topics())) {
    return corrupt("Peer: over a limit");
  }
  if (p->role() > fb::Role::MAX) return fail(ErrorCode::kUnsupported, "Peer: unknown role");
  Peer m;
  m.role = static_cast<Role>(p->role());
  m.major = p->major();
  m.minor = p->minor();
  m.software = view(p->software());
  m.instance = unpack<InstanceId>(p->instance());
  m.node = unpack<NodeId>(p->node());
  m.name = view(p->name());
  m.durable_name = view(p->durable_name());
  if (p->topics() != nullptr) {
    for (const flatbuffers::String* topic : *p->topics()) {
      if (view(topic).size() > kMaxTopicBytes) return corrupt("Peer: topic over the limit");
      m.topics.emplace_back(view(topic));
    }
  }
  m.shard_index = p->shard_index();
  m.shard_count = p->shard_count();
  if (m.shard_index >= m.shard_count) return corrupt("Peer: shard index not below the count");
  if (!m.instance) return corrupt("Peer: no instance id");
  return m;
}

Result<List> decode_list(Bytes body) {
  const auto t = root<fb::List>(body, "List");
  if (!t) return tl::unexpected(t.error());
  return List{(*t)->after()};
}

Result<Streams> decode_streams(Bytes body) {
  const auto t = root<fb::Streams>(body, "Streams");
  if (!t) return tl::unexpected(t.error());
  Streams m;
  m.listing = (*t)->listing();
  m.more = (*t)->more();
  const auto* list = (*t)->streams();
  if (list_too_long(list)) return corrupt("Streams: over a limit");
  if (list == nullptr) return m;
  m.streams.reserve(list->size());
  for (const fb::StreamInfo* s : *list) {
    StreamInfo info;
    info.stream = unpack<StreamId>(s->stream());
    info.sequence = s->sequence();
    info.topic = view(s->topic());
    info.path = view(s->path());
    info.base = {s->base()};
    info.sent = {s->sent()};
    info.head = {s->head()};
    info.sealed = s->sealed();
    info.first_seen = {s->first_seen_ns()};
    info.file = {s->device(), s->inode(), s->head_length(), s->head_digest()};
    info.committed = {s->committed()};
    if (!info.stream) return corrupt("Streams: no stream id");
    if (info.path.size() > kMaxPathBytes || topic_problem(info.topic)) return corrupt("Streams: bad path or topic");
    if (info.base > info.head || info.sent > info.head) return corrupt("Streams: base or sent past the head");
    if (info.committed > info.head) return corrupt("Streams: committed past the head");
    if (info.file.head_length > kMaxIdentityHeadBytes) return corrupt("Streams: head length over the limit");
    m.streams.push_back(std::move(info));
  }
  return m;
}

Result<Fetch> decode_fetch(Bytes body) {
  const auto t = root<fb::Fetch>(body, "Fetch");
  if (!t) return tl::unexpected(t.error());
  const Fetch m{(*t)->request(), unpack<StreamId>((*t)->stream()), {{(*t)->from()}, {(*t)->to()}}, (*t)->lost()};
  if (m.range.empty()) return corrupt("Fetch: empty range");
  return m;
}

Result<FetchEnd> decode_fetch_end(Bytes body) {
  const auto t = root<fb::FetchEnd>(body, "FetchEnd");
  if (!t) return tl::unexpected(t.error());
  return FetchEnd{(*t)->request(), unpack<StreamId>((*t)->stream()), {(*t)->to()}};
}

Result<Unavailable> decode_unavailable(Bytes body) {
  const auto t = root<fb::Unavailable>(body, "Unavailable");
  if (!t) return tl::unexpected(t.error());
  Unavailable m{
      (*t)->request(), unpack<StreamId>((*t)->stream()), {{(*t)->from()}, {(*t)->to()}}, LossReason::kUnknown};
  if (m.range.empty()) return corrupt("Unavailable: empty range");
  if ((*t)->reason() <= fb::LossReason::MAX) m.reason = static_cast<LossReason>((*t)->reason());
  return m;
}

Result<Commit> decode_commit(Bytes body) {
  const auto t = root<fb::Commit>(body, "Commit");
  if (!t) return tl::unexpected(t.error());
  const auto* list = (*t)->entries();
  if (list_too_long(list)) return corrupt("Commit: over a limit");
  if (misplaced(list)) return corrupt("Commit: entries are not aligned");
  Commit m;
  if (list == nullptr) return m;
  m.entries.reserve(list->size());
  for (const fb::CommitEntry* e : *list) m.entries.push_back({unpack<StreamId>(&e->stream()), {e->offset()}});
  return m;
}

Result<Ping> decode_ping(Bytes body) {
  const auto t = root<fb::Ping>(body, "Ping");
  if (!t) return tl::unexpected(t.error());
  return Ping{(*t)->nonce()};
}

Result<Bye> decode_bye(Bytes body) {
  const auto t = root<fb::Bye>(body, "Bye");
  if (!t) return tl::unexpected(t.error());
  return Bye{std::string(view((*t)->reason()))};
}

Result<Error> decode_error(Bytes body) {
  const auto t = root<fb::Error>(body, "Error");
  if (!t) return tl::unexpected(t.error());
  return Error{static_cast<ErrorKind>((*t)->code()), std::string(view((*t)->message()))};
}

Result<Request> decode_request(Bytes body, Bytes payload) {
  const auto t = root<fb::Request>(body, "Request");
  if (!t) return tl::unexpected(t.error());
  if (name_too_long((*t)->method()) || view((*t)->method()).empty()) return corrupt("Request: no usable method");
  if ((*t)->size() != payload.size()) return corrupt("Request: payload of another size");
  if (name_too_long((*t)->type())) return corrupt("Request: type too long");
  return Request{(*t)->request(), std::string(view((*t)->method())), (*t)->timeout_ms(),
                 std::string(view((*t)->type()))};
}

std::optional<std::uint64_t> request_number(Bytes body) {
  const auto t = root<fb::Request>(body, "Request");
  if (!t) return std::nullopt;
  return (*t)->request();
}

Result<Reply> decode_reply(Bytes body, Bytes payload) {
  const auto t = root<fb::Reply>(body, "Reply");
  if (!t) return tl::unexpected(t.error());
  if ((*t)->size() != payload.size()) return corrupt("Reply: payload of another size");
  return Reply{(*t)->request(), (*t)->sequence(), (*t)->partial()};
}

Result<Failure> decode_failure(Bytes body) {
  const auto t = root<fb::Failure>(body, "Failure");
  if (!t) return tl::unexpected(t.error());
  if (name_too_long((*t)->type())) return corrupt("Failure: over a limit");
  return Failure{(*t)->request(), std::string(view((*t)->type())), std::string(view((*t)->message())),
                 std::string(view((*t)->trace()))};
}

Result<Event> decode_event(Bytes body, Bytes payload) {
  const auto t = root<fb::Event>(body, "Event");
  if (!t) return tl::unexpected(t.error());
  if (name_too_long((*t)->channel())) return corrupt("Event: over a limit");
  if ((*t)->size() != payload.size()) return corrupt("Event: payload of another size");
  return Event{std::string(view((*t)->channel())), (*t)->sequence()};
}

Result<Cancel> decode_cancel(Bytes body) {
  const auto t = root<fb::Cancel>(body, "Cancel");
  if (!t) return tl::unexpected(t.error());
  return Cancel{(*t)->request()};
}

}  // namespace fantail::wire
