#include "consumer/cursor_store.h"

#include <algorithm>

namespace fantail {
namespace {

constexpr const char* kFile = "cursors.db";
constexpr const char* kSchemaVersion = "1";
constexpr const char* kSchema = R"sql(
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nodes (
  node TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  directory TEXT NOT NULL UNIQUE,
  known_sequence INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursors (
  sink TEXT NOT NULL, stream TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (sink, stream)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outputs (
  sink TEXT NOT NULL, path TEXT NOT NULL, length INTEGER NOT NULL, began INTEGER NOT NULL DEFAULT 0,
  rotated_to TEXT NOT NULL DEFAULT '', PRIMARY KEY (sink, path)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS mirrors (
  sink TEXT NOT NULL, stream TEXT NOT NULL, path TEXT NOT NULL, file TEXT NOT NULL, sequence INTEGER NOT NULL,
  first_seen INTEGER NOT NULL, PRIMARY KEY (sink, stream)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS streams (
  stream TEXT PRIMARY KEY, node TEXT NOT NULL, sequence INTEGER NOT NULL, topic TEXT NOT NULL, path TEXT NOT NULL,
  base INTEGER NOT NULL, final_length INTEGER, first_seen INTEGER NOT NULL, device INTEGER NOT NULL,
  inode INTEGER NOT NULL, head_length INTEGER NOT NULL, head_digest INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS streams_by_node ON streams (node, sequence);
CREATE TABLE IF NOT EXISTS losses (
  time INTEGER NOT NULL, stream TEXT NOT NULL, node TEXT NOT NULL, topic TEXT NOT NULL, path TEXT NOT NULL,
  start INTEGER NOT NULL, stop INTEGER NOT NULL, reason TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS losses_by_stream ON losses (stream, start);
)sql";

}  // namespace

Result<CursorStore> CursorStore::open(const StateDirectory& directory, std::string& set_aside) {
  const auto path = directory.path() / kFile;
  auto store = open_file(path);
  if (store || store.error().code != ErrorCode::kCorrupt) return store;
  const auto kept = directory.set_aside(kFile);
  if (!kept) return tl::unexpected(kept.error());
  set_aside = kept->string();
  return open_file(path);
}

Result<CursorStore> CursorStore::open_existing(const std::filesystem::path& directory) {
  constexpr std::uintmax_t kLeastDatabaseBytes = 512;
  const auto path = directory / kFile;
  std::error_code ec;
  const std::uintmax_t size = std::filesystem::file_size(path, ec);
  if (ec || size < kLeastDatabaseBytes) {
    return fail(ErrorCode::kNotFound,
                "no consumer has its state in " + directory.string() + "; name the directory of one with --state-dir");
  }
  return open_file(path);
}

Result<CursorStore> CursorStore::open_file(const std::filesystem::path& path) {
  auto database = Database::open(path);
  if (!database) return tl::unexpected(database.error());
  CursorStore store(std::move(*database));
  if (auto ok = store.load(); !ok) return tl::unexpected(ok.error());
  return store;
}

Status CursorStore::load() {
  if (auto ok = database_.execute(kSchema); !ok) return ok;
  const auto each = [&](const char* sql, const auto& row) -> Status {
    auto rows = database_.prepare(sql);
    if (!rows) return tl::unexpected(rows.error());
    for (;;) {
      const auto more = rows->step();
      if (!more) return tl::unexpected(more.error());
      if (!*more) return {};
      row(*rows);
    }
  };
  // Stores of before files were rotated.
  bool has_rotation = false;
  auto columns = each("SELECT 1 FROM pragma_table_info('outputs') WHERE name = 'rotated_to'",
                      [&](Statement&) { has_rotation = true; });
  if (!columns) return columns;
  if (!has_rotation) {
    auto added = database_.execute(
        "BEGIN; ALTER TABLE outputs ADD COLUMN began INTEGER NOT NULL DEFAULT 0;"
        "ALTER TABLE outputs ADD COLUMN rotated_to TEXT NOT NULL DEFAULT ''; COMMIT");
    if (!added) return added;
  }
  std::map<std::string, std::string> meta;
  if (auto ok = each("SELECT key, value FROM meta", [&](Statement& r) { meta[r.text(0)] = r.text(1); }); !ok) return ok;
  if (meta.empty()) {
    id_ = random_id<NodeId>();
    auto put = database_.prepare("INSERT INTO meta VALUES (?, ?)");
    if (!put) return tl::unexpected(put.error());
    auto transaction = database_.begin(Database::Durability::kPowerLoss);
    if (!transaction) return tl::unexpected(transaction.error());
    if (auto ok = put->bind(1, "schema").bind(2, kSchemaVersion).run(); !ok) return ok;
    if (auto ok = put->bind(1, "consumer").bind(2, to_string(id_)).run(); !ok) return ok;
    return transaction->commit();
  }
  if (meta["schema"] != kSchemaVersion) {
    return fail(ErrorCode::kUnsupported, "cursor store: schema version '" + meta["schema"] + "' is not version " +
                                             kSchemaVersion + " of this program; use the version that wrote it");
  }
  const auto id = id_from_hex<NodeId>(meta["consumer"]);
  if (!id) return fail(ErrorCode::kCorrupt, "cursor store: the consumer id is not readable");
  id_ = *id;

  auto ok = each("SELECT node, name, directory, known_sequence FROM nodes", [&](Statement& r) {
    if (const auto node = id_from_hex<NodeId>(r.text(0)))
      nodes_[*node] = {{r.text(2), r.unsigned_integer(3)}, r.text(1)};
  });
  if (!ok) return ok;
  ok = each("SELECT sink, stream, position FROM cursors", [&](Statement& r) {
    if (const auto stream = id_from_hex<StreamId>(r.text(1))) cursors_[r.text(0)][*stream] = {r.unsigned_integer(2)};
  });
  if (!ok) return ok;
  ok = each("SELECT sink, path, length, began, rotated_to FROM outputs", [&](Statement& r) {
    outputs_[r.text(0)][r.text(1)] = {r.text(1), r.unsigned_integer(2), {r.integer(3)}, r.text(4)};
  });
  if (!ok) return ok;
  return each("SELECT sink, stream, path, file, sequence, first_seen FROM mirrors", [&](Statement& r) {
    if (const auto stream = id_from_hex<StreamId>(r.text(1))) {
      mirrors_[r.text(0)][*stream] = {r.text(2), r.text(3), r.unsigned_integer(4), {r.integer(5)}};
    }
  });
}

Result<CursorStore::NodeRow> CursorStore::node(NodeId node, const std::string& name) {
  if (const auto found = nodes_.find(node); found != nodes_.end()) return found->second.row;
  // Two nodes may carry one name; the second is told apart by its id.
  std::string directory;
  for (const char c : name) directory += c == '/' || static_cast<unsigned char>(c) < 0x20 ? '_' : c;
  if (directory.empty() || directory.starts_with('.')) directory.insert(0, "_");
  directory.resize(std::min<std::size_t>(directory.size(), 200));
  const bool taken = std::any_of(nodes_.begin(), nodes_.end(),
                                 [&](const auto& entry) { return entry.second.row.directory == directory; });
  if (taken) directory += "~" + short_hex(node);
  auto row = database_.prepare("INSERT INTO nodes VALUES (?, ?, ?, 0)");
  if (!row) return tl::unexpected(row.error());
  if (auto ok = row->bind(1, to_string(node)).bind(2, name).bind(3, directory).run(); !ok)
    return tl::unexpected(ok.error());
  nodes_[node] = {{directory, 0}, name};
  return nodes_[node].row;
}

std::optional<FileOffset> CursorStore::cursor(const std::string& sink, StreamId stream) const {
  const auto of_sink = cursors_.find(sink);
  if (of_sink == cursors_.end()) return std::nullopt;
  const auto found = of_sink->second.find(stream);
  if (found == of_sink->second.end()) return std::nullopt;
  return found->second;
}

std::map<StreamId, CursorStore::MirrorRow> CursorStore::mirrors(const std::string& sink) const {
  const auto found = mirrors_.find(sink);
  return found == mirrors_.end() ? std::map<StreamId, MirrorRow>{} : found->second;
}

Status CursorStore::save_mirrors(const std::string& sink, const NamedMirrors& rows) {
  auto put = database_.prepare("INSERT OR REPLACE INTO mirrors VALUES (?,?,?,?,?,?)");
  if (!put) return tl::unexpected(put.error());
  auto transaction = database_.begin(Database::Durability::kProcessDeath);
  if (!transaction) return tl::unexpected(transaction.error());
  for (const auto& [stream, row] : rows) {
    put->bind(1, sink).bind(2, to_string(stream)).bind(3, row.path).bind(4, row.file);
    if (auto ok = put->bind(5, row.sequence).bind(6, row.first_seen.ns).run(); !ok) return ok;
  }
  if (auto ok = transaction->commit(); !ok) return ok;
  for (const auto& [stream, row] : rows) mirrors_[sink][stream] = row;
  return {};
}

Status CursorStore::save(const std::vector<SinkCheckpoint>& sinks,
                         const std::map<NodeId, std::uint64_t>& known_sequences, const StreamChanges& streams) {
  auto position = database_.prepare("INSERT OR REPLACE INTO cursors VALUES (?,?,?)");
  auto output =
      database_.prepare("INSERT OR REPLACE INTO outputs (sink, path, length, began, rotated_to) VALUES (?,?,?,?,?)");
  auto gone = database_.prepare("DELETE FROM outputs WHERE sink = ? AND path = ?");
  auto sequence = database_.prepare("UPDATE nodes SET known_sequence = ? WHERE node = ?");
  if (!position || !output || !gone || !sequence) return fail(ErrorCode::kIo, "cursor store: cannot prepare");
  auto transaction = database_.begin(Database::Durability::kPowerLoss);
  if (!transaction) return tl::unexpected(transaction.error());
  for (const auto& s : sinks) {
    for (const auto& p : s.positions) {
      if (auto ok = position->bind(1, s.sink).bind(2, to_string(p.stream)).bind(3, p.offset.raw).run(); !ok) return ok;
    }
    for (const auto& o : s.outputs) {
      if (o.gone) {
        if (auto ok = gone->bind(1, s.sink).bind(2, o.path).run(); !ok) return ok;
        continue;
      }
      output->bind(1, s.sink).bind(2, o.path).bind(3, o.length);
      if (auto ok = output->bind(4, o.began.ns).bind(5, o.rotated_to).run(); !ok) return ok;
    }
  }
  for (const auto& [node, number] : known_sequences) {
    if (auto ok = sequence->bind(1, number).bind(2, to_string(node)).run(); !ok) return ok;
  }
  if (auto ok = save_streams(streams); !ok) return ok;
  if (auto ok = transaction->commit(); !ok) return ok;
  for (const auto& s : sinks) {
    for (const auto& p : s.positions) cursors_[s.sink][p.stream] = p.offset;
    for (const auto& o : s.outputs) {
      if (o.gone) {
        outputs_[s.sink].erase(o.path);
      } else {
        outputs_[s.sink][o.path] = o;
      }
    }
  }
  return {};
}

/// Within a transaction. A stream stays with the node that told of it first.
Status CursorStore::save_streams(const StreamChanges& changes) {
  if (!changes.told.empty()) {
    auto row = database_.prepare(
        "INSERT INTO streams VALUES (?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (stream) DO UPDATE SET "
        "final_length = excluded.final_length, device = excluded.device, inode = excluded.inode, "
        "head_length = excluded.head_length, head_digest = excluded.head_digest WHERE node = excluded.node");
    if (!row) return tl::unexpected(row.error());
    for (const auto& [id, told] : changes.told) {
      const wire::StreamInfo& info = told.info;
      row->bind(1, to_string(id)).bind(2, to_string(told.node)).bind(3, info.sequence).bind(4, info.topic);
      row->bind(5, info.path).bind(6, info.base.raw);
      if (info.sealed) row->bind(7, info.head.raw);
      row->bind(8, info.first_seen.ns).bind(9, info.file.device).bind(10, info.file.inode);
      row->bind(11, std::uint64_t{info.file.head_length}).bind(12, info.file.head_digest);
      if (auto ok = row->run(); !ok) return ok;
    }
  }
  if (!changes.sealed.empty()) {
    auto seal = database_.prepare("UPDATE streams SET final_length = ? WHERE stream = ?");
    if (!seal) return tl::unexpected(seal.error());
    for (const auto& [id, length] : changes.sealed) {
      if (auto ok = seal->bind(1, length.raw).bind(2, to_string(id)).run(); !ok) return ok;
    }
  }
  return {};
}

Result<bool> CursorStore::streams_of(NodeId node, std::uint64_t after,
                                     const std::function<bool(wire::StreamInfo)>& take) {
  auto rows = database_.prepare(
      "SELECT stream, sequence, topic, path, base, final_length IS NOT NULL, coalesce(final_length, 0), first_seen, "
      "device, inode, head_length, head_digest FROM streams WHERE node = ? AND sequence > ? ORDER BY sequence");
  if (!rows) return tl::unexpected(rows.error());
  rows->bind(1, to_string(node)).bind(2, after);
  for (;;) {
    const auto row = rows->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) return false;
    wire::StreamInfo info;
    const auto id = id_from_hex<StreamId>(rows->text(0));
    if (!id) continue;
    info.stream = *id;
    info.sequence = rows->unsigned_integer(1);
    info.topic = rows->text(2);
    info.path = rows->text(3);
    info.base = {rows->unsigned_integer(4)};
    info.sealed = rows->integer(5) != 0;
    info.head = std::max(info.base, FileOffset{rows->unsigned_integer(6)});
    info.first_seen = {rows->integer(7)};
    info.file = {rows->unsigned_integer(8), rows->unsigned_integer(9),
                 static_cast<std::uint32_t>(rows->unsigned_integer(10)), rows->unsigned_integer(11)};
    if (!take(std::move(info))) return true;
  }
}

Status CursorStore::record_loss(const Loss& loss) {
  // No unique index: stores of before may have some of them twice.
  auto row = database_.prepare(
      "INSERT INTO losses SELECT ?1,?2,?3,?4,?5,?6,?7,?8 "
      "WHERE NOT EXISTS (SELECT 1 FROM losses WHERE stream = ?2 AND start = ?6 AND stop = ?7)");
  if (!row) return tl::unexpected(row.error());
  auto transaction = database_.begin(Database::Durability::kPowerLoss);
  if (!transaction) return tl::unexpected(transaction.error());
  row->bind(1, wall_now().ns).bind(2, to_string(loss.stream.stream)).bind(3, loss.stream.node_name);
  row->bind(4, loss.stream.topic).bind(5, loss.stream.path).bind(6, loss.range.from.raw).bind(7, loss.range.to.raw);
  if (auto ok = row->bind(8, wire::to_string(loss.reason)).run(); !ok) return ok;
  if (auto ok = drop_old_losses(); !ok) return ok;
  return transaction->commit();
}

}  // namespace fantail
