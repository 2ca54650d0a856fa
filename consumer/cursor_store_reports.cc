// The part of CursorStore that commands ask: what there is, which losses were recorded, and putting cursors back.
#include <set>

#include "consumer/cursor_store.h"

namespace fantail {
namespace {

constexpr const char* kDroppedLosses = "dropped_losses";  // in `meta`

}  // namespace

Result<std::vector<CursorStore::LossRow>> CursorStore::losses() {
  auto rows =
      database_.prepare("SELECT stream, node, topic, path, start, stop, reason, time FROM losses ORDER BY rowid");
  if (!rows) return tl::unexpected(rows.error());
  std::vector<LossRow> out;
  for (;;) {
    const auto row = rows->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) return out;
    const auto id = id_from_hex<StreamId>(rows->text(0));
    if (!id) return fail(ErrorCode::kCorrupt, "cursor store: the stream of a loss is not readable");
    out.push_back({*id,
                   rows->text(1),
                   rows->text(2),
                   rows->text(3),
                   {{rows->unsigned_integer(4)}, {rows->unsigned_integer(5)}},
                   rows->text(6),
                   {rows->integer(7)}});
  }
}

Result<std::int64_t> CursorStore::dropped_losses() {
  auto row = database_.prepare("SELECT value FROM meta WHERE key = ?");
  if (!row) return tl::unexpected(row.error());
  row->bind(1, kDroppedLosses);
  const auto there = row->step();
  if (!there) return tl::unexpected(there.error());
  return *there ? std::strtoll(row->text(0).c_str(), nullptr, 10) : 0;
}

/// Within a transaction.
Status CursorStore::drop_old_losses() {
  auto count = database_.prepare("SELECT count(*) FROM losses");
  if (!count) return tl::unexpected(count.error());
  if (const auto row = count->step(); !row) return tl::unexpected(row.error());
  const std::int64_t surplus = count->integer(0) - kMaxLosses;
  count->reset();
  if (surplus <= 0) return {};
  const auto before = dropped_losses();
  if (!before) return tl::unexpected(before.error());
  auto oldest =
      database_.prepare("DELETE FROM losses WHERE rowid IN (SELECT rowid FROM losses ORDER BY rowid LIMIT ?)");
  auto note = database_.prepare("INSERT OR REPLACE INTO meta VALUES (?, ?)");
  if (!oldest) return tl::unexpected(oldest.error());
  if (!note) return tl::unexpected(note.error());
  if (auto ok = oldest->bind(1, surplus).run(); !ok) return ok;
  return note->bind(1, kDroppedLosses).bind(2, std::to_string(*before + surplus)).run();
}

Result<std::vector<CursorStore::StreamRow>> CursorStore::streams() {
  std::vector<StreamRow> out;
  std::set<StreamId> told;
  for (const auto& [node, known] : nodes_) {
    const auto all = streams_of(node, 0, [&](wire::StreamInfo info) {
      told.insert(info.stream);
      out.push_back({node, known.name, std::move(info)});
      return true;
    });
    if (!all) return tl::unexpected(all.error());
  }
  for (const auto& [sink, cursors] : cursors_) {
    for (const auto& [stream, offset] : cursors) {
      if (!told.insert(stream).second) continue;
      StreamRow row;
      row.info.stream = stream;
      out.push_back(std::move(row));
    }
  }
  return out;
}

std::map<std::string, FileOffset> CursorStore::cursors(StreamId stream) const {
  std::map<std::string, FileOffset> out;
  for (const auto& [sink, cursors] : cursors_) {
    if (const auto found = cursors.find(stream); found != cursors.end()) out[sink] = found->second;
  }
  return out;
}

Result<std::size_t> CursorStore::rewind(const std::vector<StreamId>& streams, FileOffset to) {
  auto transaction = database_.begin(Database::Durability::kPowerLoss);
  if (!transaction) return tl::unexpected(transaction.error());
  auto row = database_.prepare("UPDATE cursors SET position = ? WHERE sink = ? AND stream = ?");
  if (!row) return tl::unexpected(row.error());
  std::set<StreamId> moved;
  for (const StreamId stream : streams) {
    for (const auto& [sink, offset] : cursors(stream)) {
      if (offset <= to) continue;
      if (auto ok = row->bind(1, to.raw).bind(2, sink).bind(3, to_string(stream)).run(); !ok) {
        return tl::unexpected(ok.error());
      }
      moved.insert(stream);
    }
  }
  if (auto ok = transaction->commit(); !ok) return tl::unexpected(ok.error());
  for (auto& [sink, cursors] : cursors_) {
    for (const StreamId stream : moved) {
      if (const auto found = cursors.find(stream); found != cursors.end()) found->second = std::min(found->second, to);
    }
  }
  return moved.size();
}

}  // namespace fantail
