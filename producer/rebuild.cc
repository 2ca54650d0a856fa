#include "producer/rebuild.h"

#include <algorithm>
#include <filesystem>
#include <set>

namespace fantail {
namespace {

/// What the file is to be read on with as this stream, or why it is not its file.
Result<Fingerprint> fingerprint_of(const ToldStream& told, const std::string& path, FileOffset from) {
  const auto differs = [&](const char* why) { return fail(ErrorCode::kReplaced, path + ": " + why); };
  if (told.disputed) return differs("consumers tell of different files");
  if (told.heads.empty() && told.end().raw > 0) return differs("nobody knows its beginning");
  Fingerprint known;
  for (const auto& [length, digest] : told.heads) {
    known = {.cursor = {}, .head_length = length, .head_digest = digest, .tail_digest = 0};
    TailedFile file(path, told.key(), known);
    const auto look = file.look(true);
    if (!look && look.error().code != ErrorCode::kReplaced && look.error().code != ErrorCode::kNotFound) {
      return known;  // not readable for now: from its beginning, when it is, and compared with this then
    }
    if (!look) return tl::unexpected(look.error());
    if (look->size < told.end().raw) return differs("shorter than what was read of it");
  }
  TailedFile file(path, told.key(), known);
  if (auto ok = file.skip_to(from); !ok) return tl::unexpected(ok.error());
  return file.fingerprint();
}

/// The same for a stream of what is in an archive. Whether that is long enough shows when it is read.
Result<Fingerprint> archive_fingerprint_of(const ToldStream& told, const std::string& path, FileOffset from,
                                           ArchiveBudget& archives) {
  if (told.disputed || told.heads.empty()) return fail(ErrorCode::kReplaced, path + ": nobody knows its beginning");
  Fingerprint known;
  for (const auto& [length, digest] : told.heads) {
    known = {.cursor = {}, .head_length = length, .head_digest = digest, .tail_digest = 0};
    TailedFile file(path, told.key(), known);
    file.read_archive(archives, ArchiveMark{});
    if (const auto look = file.look(true); !look) return tl::unexpected(look.error());
  }
  TailedFile file(path, told.key(), known);
  file.read_archive(archives, ArchiveMark{});
  if (auto ok = file.skip_to(from); !ok) return tl::unexpected(ok.error());
  return file.fingerprint();
}

/// Files that no pattern takes, in the directories where streams that have no file so far were first seen.
std::map<FileKey, std::string> renamed(const Recollection& told, const FilesThere& files) {
  std::map<std::filesystem::path, std::set<FileKey>> wanted;
  for (const auto& [id, stream] : told.streams()) {
    const bool complete_head = stream.heads.contains(Fingerprint::kHeadBytes);
    // A file that nobody selected must not be sent because of a guess.
    if (!complete_head || files.selected.contains(stream.key()) || !files.selects(stream.info.path)) continue;
    wanted[std::filesystem::path(stream.info.path).parent_path()].insert(stream.key());
  }
  std::map<FileKey, std::string> out;
  for (const auto& [directory, keys] : wanted) out.merge(find_in_directory(directory, keys));
  return out;
}

}  // namespace

Rebuilt rebuild(const Recollection& told, const FilesThere& files, bool from_end, ArchiveBudget* archives) {
  Rebuilt out;
  out.last_sequence = told.last_sequence();
  out.ignored = told.unusable();
  auto there = files.selected;
  there.merge(renamed(told, files));

  // An inode has one file at a time: of its streams the newest is the one that may go on.
  std::vector<const ToldStream*> newest_first;
  for (const auto& [id, stream] : told.streams()) newest_first.push_back(&stream);
  std::sort(newest_first.begin(), newest_first.end(),
            [](const auto* a, const auto* b) { return a->info.sequence > b->info.sequence; });
  std::set<FileKey> seen;   // by a newer stream
  std::set<FileKey> taken;  // and it is its file
  std::set<std::uint64_t> sequences;
  for (const ToldStream* stream : newest_first) {
    const FileKey key = stream->key();
    StreamRecord record;
    record.info = stream->info;
    record.info.base = from_end ? stream->info.base : FileOffset{};
    record.info.sealed = false;
    record.info.committed = {};
    record.current_path = record.info.path;
    record.key = key;
    const bool first_of_inode = seen.insert(key).second;
    const auto file = there.find(key);
    // A consumer that missed how the older one ended may tell of it as if it went on. An archive that an older stream
    // has ended with may have got the inode of a newer one.
    const bool may_go_on = file != there.end() && !taken.contains(key);
    if (may_go_on) {
      const FileOffset from = std::max(stream->lowest, record.info.base);
      Result<Fingerprint> fingerprint = fail(ErrorCode::kReplaced, "ended");
      if (first_of_inode || !stream->sealed) fingerprint = fingerprint_of(*stream, file->second, from);
      if (!fingerprint && archives != nullptr) {
        fingerprint = archive_fingerprint_of(*stream, file->second, from, *archives);
        if (fingerprint) record.archive = ArchiveMark{};
      }
      if (fingerprint) {
        taken.insert(key);
        record.current_path = file->second;
        record.fingerprint = *fingerprint;
        record.info.file = identity_of(key, *fingerprint);
        record.info.sent = record.info.head = std::max(fingerprint->cursor, record.info.base);
        ++out.recovered;
        if (!sequences.insert(record.info.sequence).second) record.info.sequence = ++out.last_sequence;
        out.streams.push_back(std::move(record));
        continue;
      }
    }
    if (!files.selects(record.info.path)) {
      ++out.ignored;
      continue;
    }
    record.info.sealed = true;
    record.info.sent = record.info.head = std::max(stream->end(), record.info.base);
    record.gone = file == there.end() ? wire::LossReason::kDeleted : wire::LossReason::kTruncated;
    const bool over = stream->lowest >= record.info.head;
    if (over && stream->sealed) continue;
    if (!sequences.insert(record.info.sequence).second) record.info.sequence = ++out.last_sequence;
    if (over) {
      out.over.push_back(std::move(record.info));
    } else {
      out.streams.push_back(std::move(record));
    }
  }
  return out;
}

}  // namespace fantail
