#include "producer/registry.h"

#include "common/base/log.h"
#include "common/storage/small_file.h"

namespace fantail {
namespace {

constexpr const char* kFile = "registry.db";
constexpr std::uintmax_t kLeastDatabaseBytes = 512;
constexpr const char* kNodeFile = "node";
constexpr const char* kPositionsFile = "positions";
constexpr const char* kRebuilding = "rebuilding";  // in `meta`, as the next
constexpr const char* kStarted = "started";
constexpr const char* kUnderWay = "0";  // its value during the first start
constexpr int kSchemaVersion = 1;
constexpr const char* kSchema = R"sql(
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS streams (
  stream TEXT PRIMARY KEY,
  sequence INTEGER NOT NULL UNIQUE,
  topic TEXT NOT NULL,
  path TEXT NOT NULL,
  current_path TEXT NOT NULL,
  device INTEGER NOT NULL,
  inode INTEGER NOT NULL,
  base INTEGER NOT NULL,
  cursor INTEGER NOT NULL,
  head INTEGER NOT NULL,
  head_length INTEGER NOT NULL,
  head_digest INTEGER NOT NULL,
  tail_digest INTEGER NOT NULL,
  first_seen INTEGER NOT NULL,
  sealed INTEGER NOT NULL,
  gone INTEGER NOT NULL  -- 0 readable, else 1 + loss reason
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS consumers (
  name TEXT PRIMARY KEY,
  topics TEXT NOT NULL,  -- separated by newlines
  shard_index INTEGER NOT NULL,
  shard_count INTEGER NOT NULL,
  last_seen INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS commits (
  consumer TEXT NOT NULL,
  stream TEXT NOT NULL,
  committed INTEGER NOT NULL,
  PRIMARY KEY (consumer, stream)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS archives (  -- streams of decompressed bytes
  stream TEXT PRIMARY KEY,
  compressed INTEGER NOT NULL,
  position INTEGER NOT NULL,
  digest INTEGER NOT NULL,
  origin INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS copies (  -- files that are there and are not sent: a stream has their bytes
  device INTEGER NOT NULL,
  inode INTEGER NOT NULL,
  path TEXT NOT NULL,
  stream TEXT NOT NULL,
  size INTEGER NOT NULL,
  head_length INTEGER NOT NULL,
  head_digest INTEGER NOT NULL,
  tail_digest INTEGER NOT NULL,
  PRIMARY KEY (device, inode)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS commits_by_stream ON commits (stream);
-- A table of its own: versions without it go on with this registry, and with theirs so does this one.
CREATE TABLE IF NOT EXISTS absences (consumer TEXT PRIMARY KEY, away_ms INTEGER NOT NULL) WITHOUT ROWID;
)sql";

/// Nothing where it is missing or not readable as an id.
std::optional<NodeId> read_node(const std::filesystem::path& path) {
  const auto text = read_small_file(path);
  if (!text) return std::nullopt;
  return id_from_hex<NodeId>(std::string_view(*text).substr(0, text->find('\n')));
}

std::int64_t gone_column(const std::optional<wire::LossReason>& gone) {
  return gone ? 1 + static_cast<std::int64_t>(*gone) : 0;
}

}  // namespace

Result<Registry> Registry::open(const StateDirectory& directory, Opening& opening) {
  const auto path = directory.path() / kFile;
  const auto node_path = directory.path() / kNodeFile;
  const auto node = read_node(node_path);
  const auto set_aside = [&]() -> Status {
    opening.lost = true;
    const auto kept = directory.set_aside(kFile);
    if (!kept) return tl::unexpected(kept.error());
    opening.set_aside = kept->string();
    return {};
  };
  // SQLite takes what is shorter than a page for a new database, and drops the log that belongs to it.
  std::error_code ec;
  const std::uintmax_t size = std::filesystem::exists(path, ec) ? std::filesystem::file_size(path, ec) : 0;
  const bool empty = size < kLeastDatabaseBytes;
  if (empty && (node || size > 0)) {
    if (auto ok = set_aside(); !ok) return tl::unexpected(ok.error());
  }
  auto registry = open_file(path, node);
  if (!registry && registry.error().code == ErrorCode::kCorrupt) {
    if (auto ok = set_aside(); !ok) return tl::unexpected(ok.error());
    registry = open_file(path, node);
  }
  if (!registry) return registry;
  registry->open_positions(directory.path(), true);
  opening.new_node = !node && (empty || opening.lost);
  if (opening.lost && !registry->rebuilding_) {
    if (auto ok = registry->set_started(); !ok) return tl::unexpected(ok.error());
  }
  if (node != registry->node_) {
    if (auto ok = replace_small_file(node_path, to_string(registry->node_) + "\n"); !ok) {
      log::warn("cannot keep the node id beside the registry", {{"error", ok.error()}});
    }
  }
  return registry;
}

Result<Registry> Registry::open_existing(const std::filesystem::path& directory) {
  const auto path = directory / kFile;
  std::error_code ec;
  const std::uintmax_t size = std::filesystem::file_size(path, ec);
  if (ec || size < kLeastDatabaseBytes) {
    return fail(ErrorCode::kNotFound,
                "no producer has its state in " + directory.string() + "; name the directory of one with --state-dir");
  }
  auto registry = open_file(path, std::nullopt);
  if (registry) registry->open_positions(directory, false);
  return registry;
}

void Registry::open_positions(const std::filesystem::path& directory, bool owner) {
  owner_ = owner;
  auto positions = PositionFile::open(directory / kPositionsFile, owner);
  if (positions) {
    positions_ = std::move(*positions);
  } else if (owner) {
    log::warn("cannot keep exact positions, after a kill those of up to a second ago are used",
              {{"error", positions.error()}});
  }
}

PositionFile::Slot Registry::slot_for(StreamId stream, const Fingerprint& fingerprint) {
  if (!positions_) return PositionFile::kNone;
  const auto slot = positions_->add(stream, fingerprint);
  if (slot) return *slot;
  if (const auto n = positions_log_.occurred(mono_now())) {
    log::warn("cannot keep the exact position of a stream, after a kill that of up to a second ago is used",
              {{"error", slot.error()}, {"count", *n}});
  }
  return PositionFile::kNone;
}

Result<Registry> Registry::open_file(const std::filesystem::path& path, std::optional<NodeId> node) {
  auto database = Database::open(path);
  if (!database) return tl::unexpected(database.error());
  Registry registry(std::move(*database));
  if (auto ok = registry.set_up(node); !ok) return tl::unexpected(ok.error());
  if (const auto streams = registry.load_streams(); !streams) return tl::unexpected(streams.error());
  return registry;
}

/// `node`: what a fresh one takes for its node id, if there is one left; its streams are then known to consumers only.
Status Registry::set_up(std::optional<NodeId> known_node) {
  if (auto ok = database_.execute(kSchema); !ok) return ok;
  auto get = database_.prepare("SELECT value FROM meta WHERE key = ?");
  auto put = database_.prepare("INSERT OR REPLACE INTO meta VALUES (?, ?)");
  if (!get) return tl::unexpected(get.error());
  if (!put) return tl::unexpected(put.error());
  const auto meta = [&](const char* key) -> Result<std::optional<std::string>> {
    get->bind(1, key);
    const auto row = get->step();
    if (!row) return tl::unexpected(row.error());
    std::optional<std::string> value;
    if (*row) value = get->text(0);
    get->reset();
    return value;
  };
  const auto schema = meta("schema");
  if (!schema) return tl::unexpected(schema.error());
  if (*schema && **schema != std::to_string(kSchemaVersion)) {
    return fail(ErrorCode::kUnsupported, "registry: schema version " + **schema + " is not version " +
                                             std::to_string(kSchemaVersion) +
                                             " of this program; use the version that wrote it");
  }
  const auto node = meta("node");
  if (!node) return tl::unexpected(node.error());
  if (*node) {
    const auto id = id_from_hex<NodeId>(**node);
    if (!id) return fail(ErrorCode::kCorrupt, "registry: the node id is not readable");
    node_ = *id;
  } else {
    node_ = known_node.value_or(random_id<NodeId>());
    auto transaction = database_.begin(Database::Durability::kPowerLoss);
    if (!transaction) return tl::unexpected(transaction.error());
    if (auto ok = put->bind(1, "schema").bind(2, std::to_string(kSchemaVersion)).run(); !ok) return ok;
    if (auto ok = put->bind(1, "node").bind(2, to_string(node_)).run(); !ok) return ok;
    if (known_node) {
      if (auto ok = put->bind(1, kRebuilding).bind(2, "1").run(); !ok) return ok;
    }
    if (auto ok = transaction->commit(); !ok) return ok;
  }
  const auto rebuilding = meta(kRebuilding);
  if (!rebuilding) return tl::unexpected(rebuilding.error());
  rebuilding_ = rebuilding->has_value();
  const auto started = meta(kStarted);
  if (!started) return tl::unexpected(started.error());
  first_start_under_way_ = *started == kUnderWay;
  started_ = started->has_value() && !first_start_under_way_;
  // Kept apart from the streams, so that a number is never used twice even when its stream is long forgotten.
  const auto last = meta("last_sequence");
  if (!last) return tl::unexpected(last.error());
  if (*last) last_sequence_ = std::strtoull((*last)->c_str(), nullptr, 10);
  return {};
}

Result<std::vector<StreamRecord>> Registry::load_streams() {
  std::vector<StreamRecord> out;
  if (auto ok = each_stream([&](StreamRecord&& record) { out.push_back(std::move(record)); }); !ok) {
    return tl::unexpected(ok.error());
  }
  return out;
}

Status Registry::each_stream(const std::function<void(StreamRecord&&)>& take) {
  auto rows = database_.prepare(
      "SELECT stream, sequence, topic, path, current_path, device, inode, base, cursor, head, head_length, "
      "head_digest, "
      "tail_digest, first_seen, sealed, gone, archives.stream IS NOT NULL, compressed, position, digest, origin "
      "FROM streams LEFT JOIN archives USING (stream) ORDER BY sequence");
  if (!rows) return tl::unexpected(rows.error());
  auto slots = positions_ ? positions_->slots() : std::unordered_map<StreamId, PositionFile::Slot>();
  for (;;) {
    const auto row = rows->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) break;
    StreamRecord r;
    const auto id = id_from_hex<StreamId>(rows->text(0));
    if (!id) return fail(ErrorCode::kCorrupt, "registry: a stream id is not readable");
    r.info.stream = *id;
    r.info.sequence = rows->unsigned_integer(1);
    r.info.topic = rows->text(2);
    r.info.path = rows->text(3);
    r.current_path = rows->text(4);
    r.key = {rows->unsigned_integer(5), rows->unsigned_integer(6)};
    r.info.base = {rows->unsigned_integer(7)};
    r.fingerprint.cursor = {rows->unsigned_integer(8)};
    r.info.head = {rows->unsigned_integer(9)};
    r.fingerprint.head_length = static_cast<std::uint32_t>(rows->unsigned_integer(10));
    r.fingerprint.head_digest = rows->unsigned_integer(11);
    r.fingerprint.tail_digest = rows->unsigned_integer(12);
    r.info.first_seen = {rows->integer(13)};
    r.info.sealed = rows->integer(14) != 0;
    if (const auto gone = rows->integer(15); gone != 0) r.gone = static_cast<wire::LossReason>(gone - 1);
    if (rows->integer(16) != 0) {
      r.archive = {rows->unsigned_integer(17),
                   {rows->unsigned_integer(18)},
                   rows->unsigned_integer(19),
                   rows->unsigned_integer(20)};
    }
    if (const auto slot = slots.extract(r.info.stream)) {
      r.slot = slot.mapped();
      take_noted(r);
    }
    r.info.file = identity_of(r.key, r.fingerprint);
    r.info.sent = r.gone ? r.info.head : r.fingerprint.cursor;
    last_sequence_ = std::max(last_sequence_, r.info.sequence);
    take(std::move(r));
  }
  for (const auto& [stream, slot] : slots) {
    if (owner_) positions_->erase(slot);  // of streams that are forgotten
  }
  return {};
}

/// The position that was noted last, if it is not older. Not of an archive: where to go on in it is known only together
/// with the position that was saved.
void Registry::take_noted(StreamRecord& record) const {
  const auto noted = positions_->read(record.slot);
  if (!noted || record.info.sealed || record.archive || noted->cursor < record.fingerprint.cursor) return;
  record.fingerprint = *noted;
  record.info.head = std::max(record.info.head, noted->cursor);
}

Status Registry::load_consumers(CommitLedger& ledger) {
  auto consumers = database_.prepare("SELECT name, topics, shard_index, shard_count, last_seen FROM consumers");
  if (!consumers) return tl::unexpected(consumers.error());
  for (;;) {
    const auto row = consumers->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) break;
    Interest interest;
    std::string topics = consumers->text(1);
    for (std::size_t at = 0; at < topics.size();) {
      const auto end = topics.find('\n', at);
      interest.topics.push_back(topics.substr(at, end - at));
      if (end == std::string::npos) break;
      at = end + 1;
    }
    interest.shard_index = static_cast<std::uint16_t>(consumers->integer(2));
    interest.shard_count = static_cast<std::uint16_t>(consumers->integer(3));
    ledger.seen(consumers->text(0), interest, WallTime{consumers->integer(4)}, false);
  }
  auto commits = database_.prepare("SELECT consumer, stream, committed FROM commits");
  if (!commits) return tl::unexpected(commits.error());
  for (;;) {
    const auto row = commits->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) return {};
    const auto id = id_from_hex<StreamId>(commits->text(1));
    if (id) ledger.commit(commits->text(0), *id, {commits->unsigned_integer(2)});
  }
}

Result<std::map<std::string, Duration>> Registry::load_absences() {
  auto rows = database_.prepare("SELECT consumer, away_ms FROM absences");
  if (!rows) return tl::unexpected(rows.error());
  std::map<std::string, Duration> out;
  for (;;) {
    const auto row = rows->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) return out;
    out[rows->text(0)] = std::chrono::milliseconds(rows->integer(1));
  }
}

Status Registry::save_absences(const std::map<std::string, Duration>& absences, const CommitLedger& ledger) {
  auto transaction = database_.begin(Database::Durability::kProcessDeath);
  if (!transaction) return tl::unexpected(transaction.error());
  if (auto ok = database_.execute("DELETE FROM absences"); !ok) return ok;
  auto row = database_.prepare("INSERT INTO absences VALUES (?,?)");
  if (!row) return tl::unexpected(row.error());
  for (const auto& [name, away] : absences) {
    if (auto ok = row->bind(1, name).bind(2, to_milliseconds(away)).run(); !ok) return ok;
  }
  auto seen = database_.prepare("UPDATE consumers SET last_seen = ? WHERE name = ?");
  if (!seen) return tl::unexpected(seen.error());
  for (const auto& [name, consumer] : ledger.consumers()) {
    if (auto ok = seen->bind(1, consumer.last_seen.ns).bind(2, name).run(); !ok) return ok;
  }
  return transaction->commit();
}

Status Registry::set_started() {
  if (started_) return {};
  auto transaction = database_.begin(Database::Durability::kPowerLoss);
  if (!transaction) return tl::unexpected(transaction.error());
  if (auto ok = insert_rows({}); !ok) return ok;
  if (auto ok = transaction->commit(); !ok) return ok;
  started_ = true;
  return {};
}

Status Registry::insert(const std::vector<StreamRecord>& fresh, bool part_of_first_start) {
  if (fresh.empty()) return {};
  auto transaction = database_.begin(Database::Durability::kPowerLoss);
  if (!transaction) return tl::unexpected(transaction.error());
  if (auto ok = insert_rows(fresh, !part_of_first_start); !ok) return ok;
  if (auto ok = transaction->commit(); !ok) return ok;
  started_ = !part_of_first_start;
  return {};
}

Status Registry::finish_rebuilding(const std::vector<StreamRecord>& streams, std::uint64_t last_sequence) {
  last_sequence_ = std::max(last_sequence_, last_sequence);
  auto transaction = database_.begin(Database::Durability::kPowerLoss);
  if (!transaction) return tl::unexpected(transaction.error());
  if (auto ok = insert_rows(streams); !ok) return ok;
  auto done = database_.prepare("DELETE FROM meta WHERE key = ?");
  if (!done) return tl::unexpected(done.error());
  if (auto ok = done->bind(1, kRebuilding).run(); !ok) return ok;
  if (auto ok = transaction->commit(); !ok) return ok;
  rebuilding_ = false;
  started_ = true;
  return {};
}

/// Within a transaction.
Status Registry::insert_rows(const std::vector<StreamRecord>& fresh, bool started) {
  auto row = database_.prepare("INSERT INTO streams VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
  auto meta = database_.prepare("INSERT OR REPLACE INTO meta VALUES (?, ?)");
  if (!row) return tl::unexpected(row.error());
  if (!meta) return tl::unexpected(meta.error());
  for (const StreamRecord& r : fresh) {
    row->bind(1, to_string(r.info.stream)).bind(2, r.info.sequence).bind(3, r.info.topic).bind(4, r.info.path);
    row->bind(5, r.current_path).bind(6, r.key.device).bind(7, r.key.inode).bind(8, r.info.base.raw);
    row->bind(9, r.fingerprint.cursor.raw).bind(10, r.info.head.raw);
    row->bind(11, std::uint64_t{r.fingerprint.head_length}).bind(12, r.fingerprint.head_digest);
    row->bind(13, r.fingerprint.tail_digest).bind(14, r.info.first_seen.ns);
    row->bind(15, std::int64_t{r.info.sealed}).bind(16, gone_column(r.gone));
    if (auto ok = row->run(); !ok) return ok;
  }
  if (auto ok = save_archives(fresh); !ok) return ok;
  if (auto ok = meta->bind(1, kStarted).bind(2, started ? "1" : kUnderWay).run(); !ok) return ok;
  return meta->bind(1, "last_sequence").bind(2, std::to_string(last_sequence_)).run();
}

/// Within a transaction.
Status Registry::save_archives(const std::vector<StreamRecord>& streams) {
  auto row = database_.prepare("INSERT OR REPLACE INTO archives VALUES (?,?,?,?,?)");
  if (!row) return tl::unexpected(row.error());
  for (const StreamRecord& r : streams) {
    if (!r.archive) continue;
    row->bind(1, to_string(r.info.stream)).bind(2, r.archive->compressed).bind(3, r.archive->offset.raw);
    if (auto ok = row->bind(4, r.archive->digest).bind(5, r.archive->origin).run(); !ok) return ok;
  }
  return {};
}

Status Registry::save(const std::vector<StreamRecord>& changed, const Commits& commits) {
  if (changed.empty() && commits.empty()) return {};
  auto transaction = database_.begin(Database::Durability::kProcessDeath);
  if (!transaction) return tl::unexpected(transaction.error());
  auto row = database_.prepare(
      "UPDATE streams SET current_path=?, cursor=?, head=?, head_length=?, head_digest=?, tail_digest=?, sealed=?, "
      "gone=?, device=?, inode=? "
      "WHERE stream=?");
  auto commit = database_.prepare("INSERT OR REPLACE INTO commits VALUES (?,?,?)");
  if (!row) return tl::unexpected(row.error());
  if (!commit) return tl::unexpected(commit.error());
  for (const StreamRecord& r : changed) {
    row->bind(1, r.current_path).bind(2, r.fingerprint.cursor.raw).bind(3, r.info.head.raw);
    row->bind(4, std::uint64_t{r.fingerprint.head_length}).bind(5, r.fingerprint.head_digest);
    row->bind(6, r.fingerprint.tail_digest).bind(7, std::int64_t{r.info.sealed}).bind(8, gone_column(r.gone));
    row->bind(9, r.key.device).bind(10, r.key.inode).bind(11, to_string(r.info.stream));
    if (auto ok = row->run(); !ok) return ok;
    if (positions_) note(r.slot, r.info.stream, r.fingerprint);  // it may have been put back
  }
  if (auto ok = save_archives(changed); !ok) return ok;
  for (const auto& [of, offset] : commits) {
    if (auto ok = commit->bind(1, of.first).bind(2, to_string(of.second)).bind(3, offset.raw).run(); !ok) return ok;
  }
  return transaction->commit();
}

Result<std::vector<CopyRecord>> Registry::load_copies() {
  auto rows =
      database_.prepare("SELECT device, inode, path, stream, size, head_length, head_digest, tail_digest FROM copies");
  if (!rows) return tl::unexpected(rows.error());
  std::vector<CopyRecord> out;
  for (;;) {
    const auto row = rows->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) return out;
    const auto id = id_from_hex<StreamId>(rows->text(3));
    if (!id) return fail(ErrorCode::kCorrupt, "registry: the stream of a copy is not readable");
    CopyRecord copy;
    copy.key = {rows->unsigned_integer(0), rows->unsigned_integer(1)};
    copy.path = rows->text(2);
    copy.stream = *id;
    copy.fingerprint.cursor = {rows->unsigned_integer(4)};
    copy.fingerprint.head_length = static_cast<std::uint32_t>(rows->unsigned_integer(5));
    copy.fingerprint.head_digest = rows->unsigned_integer(6);
    copy.fingerprint.tail_digest = rows->unsigned_integer(7);
    out.push_back(std::move(copy));
  }
}

Status Registry::save_copies(const std::vector<CopyRecord>& changed, const std::vector<FileKey>& dropped) {
  if (changed.empty() && dropped.empty()) return {};
  auto transaction = database_.begin(Database::Durability::kProcessDeath);
  if (!transaction) return tl::unexpected(transaction.error());
  auto put = database_.prepare("INSERT OR REPLACE INTO copies VALUES (?,?,?,?,?,?,?,?)");
  auto drop = database_.prepare("DELETE FROM copies WHERE device = ? AND inode = ?");
  if (!put) return tl::unexpected(put.error());
  if (!drop) return tl::unexpected(drop.error());
  for (const CopyRecord& copy : changed) {
    put->bind(1, copy.key.device).bind(2, copy.key.inode).bind(3, copy.path).bind(4, to_string(copy.stream));
    put->bind(5, copy.fingerprint.cursor.raw).bind(6, std::uint64_t{copy.fingerprint.head_length});
    put->bind(7, copy.fingerprint.head_digest).bind(8, copy.fingerprint.tail_digest);
    if (auto ok = put->run(); !ok) return ok;
  }
  for (const FileKey key : dropped) {
    if (auto ok = drop->bind(1, key.device).bind(2, key.inode).run(); !ok) return ok;
  }
  return transaction->commit();
}

Status Registry::sync() {
  // The log of the database is one file: with this transaction those before it are on disk.
  auto transaction = database_.begin(Database::Durability::kPowerLoss);
  if (!transaction) return tl::unexpected(transaction.error());
  if (auto ok = insert_rows({}); !ok) return ok;
  return transaction->commit();
}

Status Registry::save_consumer(const std::string& name, const Interest& interest) {
  std::string topics;
  for (const auto& topic : interest.topics) topics += (topics.empty() ? "" : "\n") + topic;
  auto transaction = database_.begin(Database::Durability::kProcessDeath);
  if (!transaction) return tl::unexpected(transaction.error());
  auto row = database_.prepare("INSERT OR REPLACE INTO consumers VALUES (?,?,?,?,?)");
  if (!row) return tl::unexpected(row.error());
  row->bind(1, name).bind(2, topics).bind(3, std::int64_t{interest.shard_index});
  row->bind(4, std::int64_t{interest.shard_count}).bind(5, wall_now().ns);
  if (auto ok = row->run(); !ok) return ok;
  return transaction->commit();
}

Status Registry::remove_streams(const std::vector<StreamId>& streams) {
  if (streams.empty()) return {};
  auto transaction = database_.begin(Database::Durability::kProcessDeath);
  if (!transaction) return tl::unexpected(transaction.error());
  for (const char* sql : {"DELETE FROM streams WHERE stream = ?", "DELETE FROM commits WHERE stream = ?",
                          "DELETE FROM archives WHERE stream = ?"}) {
    auto row = database_.prepare(sql);
    if (!row) return tl::unexpected(row.error());
    for (const StreamId id : streams) {
      if (auto ok = row->bind(1, to_string(id)).run(); !ok) return ok;
    }
  }
  return transaction->commit();
}

Status Registry::forget_consumer(const std::string& name) {
  auto transaction = database_.begin(Database::Durability::kProcessDeath);
  if (!transaction) return tl::unexpected(transaction.error());
  for (const char* sql : {"DELETE FROM consumers WHERE name = ?", "DELETE FROM commits WHERE consumer = ?",
                          "DELETE FROM absences WHERE consumer = ?"}) {
    auto row = database_.prepare(sql);
    if (!row) return tl::unexpected(row.error());
    if (auto ok = row->bind(1, name).run(); !ok) return ok;
  }
  return transaction->commit();
}

}  // namespace fantail
