#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/types.h"

/// Every message as our own value. Nothing past common/wire sees a generated class.
namespace fantail::wire {

inline constexpr std::uint8_t kProtocolMajor = 1;
inline constexpr std::uint16_t kProtocolMinor = 0;

// Limits that decoders enforce; docs/protocol.md lists them.
inline constexpr std::uint32_t kMaxChunkBytes = 1024 * 1024;  ///< raw, per chunk
inline constexpr std::size_t kMaxHeaderBytes = 256 * 1024;    ///< header frame, prefix included
inline constexpr std::size_t kMaxTopicBytes = 255;
inline constexpr std::size_t kMaxNameBytes = 255;
inline constexpr std::size_t kMaxPathBytes = 4096;
inline constexpr std::size_t kMaxListEntries = 4096;  ///< heads, streams, commits or topics in one message
inline constexpr std::uint32_t kMaxIdentityHeadBytes = 4096;

enum class Kind : std::uint8_t {
  kChunk = 1,
  kBeacon = 2,
  kHello = 16,
  kWelcome = 17,
  kList = 18,
  kStreams = 19,
  kFetch = 20,
  kFetchData = 21,
  kFetchEnd = 22,
  kUnavailable = 23,
  kCommit = 24,
  kPing = 25,
  kPong = 26,
  kBye = 27,
  kError = 28,
  kRequest = 32,
  kReply = 33,
  kFailure = 34,
  kEvent = 35,
  kCancel = 36,
};

enum class Encoding : std::uint8_t { kNone = 0, kZstd = 1 };

struct Chunk {
  StreamId stream;
  FileOffset offset;             ///< of the first raw byte
  std::uint32_t raw_length = 0;  ///< bytes after decompression, at most kMaxChunkBytes
  Encoding encoding = Encoding::kNone;
  WallTime read_time;
  bool sealed = false;  ///< end() is the stream's final length

  FileOffset end() const { return offset + raw_length; }
  bool operator==(const Chunk&) const = default;
};

struct Head {
  StreamId stream;
  FileOffset sent;  ///< everything below was broadcast
  FileOffset head;  ///< end of what the source holds
  bool sealed = false;
  bool operator==(const Head&) const = default;
};

struct Beacon {
  NodeId node;
  InstanceId instance;
  std::string name;
  std::string control;  ///< endpoint, or empty where the control link exists already
  std::uint64_t registry_version = 0;
  std::vector<Head> heads;
  bool operator==(const Beacon&) const = default;
};

enum class Role : std::uint8_t {
  kProducer = 0,  ///< owns streams
  kConsumer = 1,  ///< wants to be told of streams
  kClient = 2,    ///< only makes requests
  kWorker = 3,    ///< answers requests
};

/// Who speaks: the content of Hello and of Welcome.
struct Peer {
  Role role = Role::kProducer;
  std::uint16_t major = kProtocolMajor;
  std::uint16_t minor = kProtocolMinor;
  std::string software;
  InstanceId instance;
  NodeId node;
  std::string name;
  std::string durable_name;         ///< consumers; empty: not durable
  std::vector<std::string> topics;  ///< consumers; empty: all
  std::uint16_t shard_index = 0;    ///< consumers; below shard_count
  std::uint16_t shard_count = 1;
  bool operator==(const Peer&) const = default;
};

struct List {
  std::uint64_t after = 0;
  bool operator==(const List&) const = default;
};

/// The file behind a stream, so that a source that lost its memory knows it again.
struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;        ///< 0: unknown, or no file
  std::uint32_t head_length = 0;  ///< how many bytes of its beginning were seen, at most kMaxIdentityHeadBytes
  std::uint64_t head_digest = 0;  ///< of these
  bool operator==(const FileIdentity&) const = default;
};

struct StreamInfo {
  StreamId stream;
  std::uint64_t sequence = 0;  ///< order of creation at its node, from 1
  std::string topic;
  std::string path;  ///< absolute, as first seen; hostile when it comes from the wire
  FileOffset base;   ///< the source offers nothing below
  FileOffset sent;
  FileOffset head;
  bool sealed = false;
  WallTime first_seen;
  FileIdentity file = {};
  FileOffset committed = {};  ///< in what a consumer tells: everything below is safe on its disk
  bool operator==(const StreamInfo&) const = default;
};

struct Streams {
  std::vector<StreamInfo> streams;
  bool listing = false;  ///< part of the answer to List, which either side may ask; else news
  bool more = false;
  bool operator==(const Streams&) const = default;
};

struct Fetch {
  std::uint64_t request = 0;
  StreamId stream;
  ByteRange range;
  bool lost = false;  ///< was broadcast while the consumer listened
  bool operator==(const Fetch&) const = default;
};

struct FetchData {
  std::uint64_t request = 0;
  Chunk chunk;  ///< never sealed
  bool operator==(const FetchData&) const = default;
};

struct FetchEnd {
  std::uint64_t request = 0;
  StreamId stream;
  FileOffset to;
  bool operator==(const FetchEnd&) const = default;
};

enum class LossReason : std::uint8_t {
  kUnknown = 0,
  kStreamUnknown = 1,
  kTruncated = 2,
  kDeleted = 3,
  kHoldExceeded = 4,
  kReadError = 5,
  kArchiveDamaged = 6,  ///< the range is one byte that stands for all behind it, however many there were
};
/// "truncated", "deleted", ...: the word in logs, outputs and docs.
std::string_view to_string(LossReason reason);

struct Unavailable {
  std::uint64_t request = 0;
  StreamId stream;
  ByteRange range;
  LossReason reason = LossReason::kUnknown;
  bool operator==(const Unavailable&) const = default;
};

struct CommitEntry {
  StreamId stream;
  FileOffset offset;
  bool operator==(const CommitEntry&) const = default;
};

struct Commit {
  std::vector<CommitEntry> entries;
  bool operator==(const Commit&) const = default;
};

struct Request {
  std::uint64_t request = 0;     ///< chosen by the caller, not used again on this link
  std::string method;            ///< 1 to kMaxNameBytes bytes
  std::uint32_t timeout_ms = 0;  ///< how long the caller waits; 0: for ever
  std::string type{};            ///< of the workers that may do it; at most kMaxNameBytes
  bool operator==(const Request&) const = default;
};

struct Reply {
  std::uint64_t request = 0;
  std::uint32_t sequence = 0;  ///< from 0, without holes
  bool partial = false;        ///< more follows
  bool operator==(const Reply&) const = default;
};

struct Failure {
  std::uint64_t request = 0;
  std::string type;     ///< to branch on; at most kMaxNameBytes
  std::string message;  ///< for people
  std::string trace;    ///< where it happened, where that is known
  bool operator==(const Failure&) const = default;
};

struct Event {
  std::string channel;         ///< at most kMaxNameBytes
  std::uint64_t sequence = 0;  ///< of this channel on this link, from 1, without holes
  bool operator==(const Event&) const = default;
};

/// The caller does not wait any more.
struct Cancel {
  std::uint64_t request = 0;
  bool operator==(const Cancel&) const = default;
};

struct Ping {
  std::uint64_t nonce = 0;
  bool operator==(const Ping&) const = default;
};

struct Bye {
  std::string reason;
  bool operator==(const Bye&) const = default;
};

enum class ErrorKind : std::uint16_t {
  kVersion = 1,        ///< another protocol major version
  kHelloRequired = 2,  ///< the receiver does not know the sender (it was restarted, or gave it up): say Hello again
  kRefused = 3,        ///< for the reason in the message; trying again will not help
};

struct Error {
  ErrorKind code = ErrorKind::kRefused;
  std::string message;
  bool operator==(const Error&) const = default;
};

}  // namespace fantail::wire
