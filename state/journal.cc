#include "state/journal.h"

#include <algorithm>

#include "common/base/digest.h"
#include "common/base/log.h"
#include "common/json/json.h"
#include "common/storage/small_file.h"

namespace fantail::state {
namespace {

constexpr std::uint64_t kMarkEveryBytes = 64 * 1024;
constexpr std::size_t kPieceBytes = 1024 * 1024;      // of a compaction, per turn
constexpr std::size_t kUnwrittenBytes = 1024 * 1024;  // kept back with Durability::kNone
constexpr std::size_t kMostEpochs = 32;               // the index is a small file
constexpr const char* kIndexFile = "journal";

}  // namespace

// ---- one file

void JournalFile::note(std::uint64_t revision, std::uint64_t offset) {
  if (marks_.empty() || offset - marks_.back().offset >= kMarkEveryBytes) marks_.push_back({revision, offset});
}

FileOffset JournalFile::place_behind(std::uint64_t revision) const {
  const auto behind = std::upper_bound(marks_.begin(), marks_.end(), revision + 1,
                                       [](std::uint64_t wanted, const Mark& m) { return wanted < m.revision; });
  return {behind == marks_.begin() ? snapshot_end_ : std::prev(behind)->offset};
}

// ---- the journal

std::filesystem::path Journal::file_path(std::uint64_t sequence) const {
  return directory_ / ("journal-" + std::to_string(sequence) + ".jsonl");
}

Result<std::unique_ptr<JournalFile>> Journal::create(StreamId stream, std::uint64_t sequence) const {
  auto file = AppendFile::create(file_path(sequence));
  if (!file) return tl::unexpected(file.error());
  return std::make_unique<JournalFile>(std::move(*file), stream, sequence);
}

Result<std::unique_ptr<JournalFile>> Journal::open_file(StreamId stream, std::uint64_t sequence) const {
  auto file = AppendFile::open(file_path(sequence));
  if (!file) return tl::unexpected(file.error());
  return std::make_unique<JournalFile>(std::move(*file), stream, sequence);
}

Result<Journal> Journal::open(const StateDirectory& directory, StateStore& store) {
  Journal journal(directory.path());
  const auto text = read_small_file(directory.path() / kIndexFile);
  if (!text && text.error().code != ErrorCode::kNotFound) return tl::unexpected(text.error());
  if (!text) {
    journal.begin_epoch(0);
    if (auto ok = journal.begin_anew(store); !ok) return tl::unexpected(ok.error());
    return journal;
  }
  const auto index = parse_json(*text);
  std::optional<StreamId> stream;
  std::uint64_t sequence = 0;
  if (index && index->is_object()) {
    stream = id_from_hex<StreamId>(index->value("stream", ""));
    sequence = index->value("sequence", std::uint64_t{0});
    for (const Json& epoch : index->value("epochs", Json::array())) {
      const auto id = id_from_hex<EpochId>(epoch.value("id", ""));
      if (id) journal.epochs_.push_back({*id, epoch.value("base", std::uint64_t{0})});
    }
  }
  if (journal.epochs_.empty()) journal.begin_epoch(0);
  if (!stream || sequence == 0) {
    return fail(ErrorCode::kCorrupt, (directory.path() / kIndexFile).string() +
                                         ": damaged; it names the journal file with the greatest number, restore it: "
                                         R"({"stream":"32 hexadecimal digits","sequence":N})");
  }
  auto file = journal.open_file(*stream, sequence);
  if (!file) return tl::unexpected(file.error());
  journal.current_ = std::move(*file);
  const auto ending = replay(*journal.current_, store);
  if (!ending) return tl::unexpected(ending.error());
  if (const auto before = id_from_hex<StreamId>(index->value("previous", "")); before && sequence > 1) {
    if (auto previous = journal.open_file(*before, sequence - 1)) {
      journal.previous_ = std::move(*previous);
      journal.previous_->base_revision_ = index->value("previous_base", UINT64_MAX - 1);
      journal.previous_->snapshot_end_ = index->value("previous_snapshot_end", std::uint64_t{0});
    }
  }
  // Others may have bytes that are lost here: those offsets must not come again with other contents. It is remembered
  // before anything is cut off, or a start that fails in between would hide it.
  const FileOffset good = journal.current_->end();
  if (*ending == Ending::kDamaged) {
    const std::string damaged = journal.current_->path().filename().string();
    journal.begin_epoch(store.revision());
    if (auto ok = journal.begin_anew(store); !ok) return tl::unexpected(ok.error());
    auto aside = directory.set_aside(damaged);
    if (!aside) return tl::unexpected(aside.error());
    log::error("the journal is damaged; it was set aside, what is before the damage goes on in a new one",
               {{"path", aside->string()}, {"offset", good}, {"revision", store.revision()}});
  } else if (*ending == Ending::kBadLine || index->value("boot", "") != boot_id()) {
    journal.begin_epoch(store.revision());
    journal.current_->stream_ = random_id<StreamId>();
    if (auto ok = journal.remember(); !ok) return tl::unexpected(ok.error());
  }
  if (*ending == Ending::kUnfinished || *ending == Ending::kBadLine) {
    log::warn("the end of the journal was not complete and is cut off",
              {{"path", journal.current_->path().string()}, {"offset", good}});
    if (auto ok = journal.current_->file_.cut_to(good.raw); !ok) return tl::unexpected(ok.error());
  }
  journal.clean_up();
  return journal;
}

/// Repeats all records. What is behind the last good one does not count any more, but is left where it is.
Result<Journal::Ending> Journal::replay(JournalFile& file, StateStore& store) {
  bool bad = false;
  const auto upto = file.file_.for_each_line([&](std::string_view line, std::uint64_t offset) {
    const auto record = parse_line(line);
    Status applied;
    if (record) applied = store.replay(*record);
    if (!record || !applied) {
      bad = true;
      log::warn("a line of the journal is no good", {{"path", file.path().string()},
                                                     {"offset", FileOffset{offset}},
                                                     {"error", record ? applied.error() : record.error()}});
      return false;
    }
    if (const auto* begin = std::get_if<SnapshotBegin>(&*record)) file.base_revision_ = begin->revision;
    if (std::holds_alternative<SnapshotEnd>(*record)) file.snapshot_end_ = offset + line.size() + 1;
    if (const auto* change = std::get_if<Change>(&*record)) file.note(change->revision, offset);
    return true;
  });
  if (!upto) return tl::unexpected(upto.error());
  const std::uint64_t good = *upto;
  if (good == file.file_.length()) return Ending::kWhole;
  const std::uint64_t surplus = file.file_.length() - good;
  // Is any whole record behind the bad one? Then it is no cut-off end.
  bool damaged = false;
  if (bad) {
    std::string rest(std::min<std::uint64_t>(surplus, 64 * 1024 * 1024), '\0');
    const auto n = file.read_at({good}, std::as_writable_bytes(std::span(rest.data(), rest.size())));
    if (!n) return tl::unexpected(n.error());
    std::size_t from = rest.find('\n');
    while (from != std::string::npos && !damaged) {
      const std::size_t end = rest.find('\n', from + 1);
      if (end == std::string::npos) break;
      damaged = parse_line(std::string_view(rest).substr(from + 1, end - from - 1)).has_value();
      from = end;
    }
  }
  file.file_.disregard_behind(good);
  if (damaged) return Ending::kDamaged;
  return bad ? Ending::kBadLine : Ending::kUnfinished;
}

/// A new file with a snapshot of all there is, in one go: at a start.
Status Journal::begin_anew(const StateStore& store) {
  if (auto ok = begin_compaction(store); !ok) return ok;
  for (;;) {
    const auto done = compact_piece(store);
    if (!done) return tl::unexpected(done.error());
    if (*done) return {};
  }
}

void Journal::begin_epoch(std::uint64_t base) {
  epochs_.push_back({random_id<EpochId>(), base});
  if (epochs_.size() > kMostEpochs) epochs_.erase(epochs_.begin());
}

std::optional<std::uint64_t> Journal::diverged(EpochId epoch, std::uint64_t revision) const {
  std::uint64_t common = revision;
  for (auto later = epochs_.rbegin(); later != epochs_.rend() && later->id != epoch; ++later) {
    common = std::min(common, later->base);
  }
  if (common == revision) return std::nullopt;
  return common;
}

Status Journal::remember() const {
  Json index = {{"stream", to_string(current_->stream())}, {"sequence", current_->sequence()}, {"boot", boot_id()}};
  for (const Epoch& epoch : epochs_) index["epochs"].push_back({{"id", to_string(epoch.id)}, {"base", epoch.base}});
  if (previous_) {
    index["previous"] = to_string(previous_->stream());
    index["previous_base"] = previous_->base_revision();
    index["previous_snapshot_end"] = previous_->snapshot_end().raw;
  }
  return replace_small_file(directory_ / kIndexFile, to_text(index));
}

/// Removes files that are neither current nor the one before.
void Journal::clean_up() const {
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator(directory_, ec)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("journal-") || !name.ends_with(".jsonl")) continue;
    const bool ours = entry.path() == current_->path() || (previous_ && entry.path() == previous_->path()) ||
                      (compaction_ && entry.path() == compaction_->file->path());
    if (!ours) std::filesystem::remove(entry.path(), ec);
  }
}

Status Journal::commit(const std::vector<Change>& changes, Durability durability) {
  std::string& lines = lines_;  // kept for its memory
  lines.clear();
  marks_.clear();
  const std::uint64_t begin = current_->file_.length() + buffer_.size();
  for (const Change& change : changes) {
    marks_.push_back({change.revision, begin + lines.size()});
    lines += to_line(change);
  }
  if (durability == Durability::kNone) {
    buffer_ += lines;
    if (buffer_.size() >= kUnwrittenBytes) {
      if (auto ok = flush(); !ok) {
        buffer_.resize(buffer_.size() - lines.size());
        return ok;
      }
    }
  } else {
    if (auto ok = current_->file_.append(lines); !ok) return ok;
    if (durability == Durability::kFsync) {
      if (auto ok = current_->file_.sync(); !ok) {
        current_->file_.take_back(begin);
        return ok;
      }
    }
  }
  for (const auto& mark : marks_) current_->note(mark.revision, mark.offset);
  if (lines.capacity() > kUnwrittenBytes) lines = {};
  return {};
}

Status Journal::flush() {
  if (buffer_.empty()) return {};
  if (auto ok = current_->file_.append(buffer_); !ok) return ok;
  buffer_.clear();
  return {};
}

// ---- compaction

Status Journal::begin_compaction(const StateStore& store) {
  if (auto ok = flush(); !ok && current_) return ok;
  auto file = create(random_id<StreamId>(), current_ ? current_->sequence() + 1 : 1);
  if (!file) return tl::unexpected(file.error());
  compaction_ = std::make_unique<Compaction>();
  compaction_->file = std::move(*file);
  compaction_->tail = current_ ? current_->file_.length() : 0;
  compaction_->file->base_revision_ = store.revision();
  if (auto ok = compaction_->file->file_.append(to_line(SnapshotBegin{store.revision()})); !ok) {
    compaction_.reset();
    return ok;
  }
  return {};
}

Result<bool> Journal::compact_piece(const StateStore& store) {
  Compaction& c = *compaction_;
  const auto give_up = [&](const Error& error) {
    std::error_code ec;
    std::filesystem::remove(c.file->path(), ec);
    compaction_.reset();
    return tl::unexpected(error);
  };
  if (!c.scanned) {
    std::string lines;
    bool more = false;
    store.scan_after(c.name_space, c.key, [&](const EntryView& entry) {
      more = lines.size() >= kPieceBytes;
      if (more) return false;
      append_line(lines, entry);
      c.name_space = entry.name_space;
      c.key = entry.key;
      ++c.entries;
      return true;
    });
    c.scanned = !more;
    if (c.scanned) lines += to_line(SnapshotEnd{store.revision(), c.entries});
    if (auto ok = c.file->file_.append(lines); !ok) return give_up(ok.error());
    if (!c.scanned) return false;
    c.file->snapshot_end_ = c.file->file_.length();
  }
  // Every change since the snapshot was begun: entries that are newer than one of them say so.
  if (current_) {
    if (auto ok = flush(); !ok) return give_up(ok.error());
    std::string bytes(std::min<std::uint64_t>(current_->file_.length() - c.tail, kPieceBytes), '\0');
    const auto n = current_->read_at({c.tail}, std::as_writable_bytes(std::span(bytes.data(), bytes.size())));
    if (!n) return give_up(n.error());
    bytes.resize(*n);
    const std::uint64_t begin = c.file->file_.length();
    if (auto ok = c.file->file_.append(bytes); !ok) return give_up(ok.error());
    // Marks move along; those within what was copied are of the old file.
    for (const auto& mark : current_->marks_) {
      if (mark.offset >= c.tail && mark.offset < c.tail + bytes.size()) {
        c.file->note(mark.revision, begin + (mark.offset - c.tail));
      }
    }
    c.tail += bytes.size();
    if (c.tail < current_->file_.length()) return false;
  }
  if (auto ok = c.file->file_.sync(); !ok) return give_up(ok.error());
  std::unique_ptr<JournalFile> before = std::exchange(previous_, std::exchange(current_, std::move(c.file)));
  compaction_.reset();
  if (auto ok = remember(); !ok) {
    // The old files are the ones that count still.
    std::error_code ec;
    std::filesystem::remove(current_->path(), ec);
    current_ = std::exchange(previous_, std::move(before));
    return tl::unexpected(ok.error());
  }
  retired_ = std::move(before);
  clean_up();
  return true;
}

}  // namespace fantail::state
