#include "consumer/mirror_sink.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/base/digest.h"
#include "common/base/log.h"
#include "common/base/signals.h"

namespace fantail {
namespace {

// Bounds of open mirrors, and of files at a checkpoint; for more than these one syncfs is cheaper. Less where few
// descriptors are allowed: sockets, databases and duplicates for the sync worker need theirs.
constexpr std::size_t kMaxOpen = 512;
constexpr std::size_t kMaxFsync = 64;
constexpr std::size_t kMaxName = 255;
constexpr std::size_t kSuffixRoom = 32;  // for "@<UTC>-<8 hex>"

std::size_t max_open() { return std::min<std::size_t>(kMaxOpen, descriptor_limit() / 8); }
std::size_t max_fsync() { return std::min<std::size_t>(kMaxFsync, descriptor_limit() / 16); }

std::string incarnation_name(const CursorStore::MirrorRow& row, StreamId stream) {
  return row.path + "@" + to_compact_utc(row.first_seen) + "-" + short_hex(stream);
}

/// Of a mirror that has the plain name of its path.
CursorStore::MirrorRow plain_row(const StreamMeta& stream) {
  CursorStore::MirrorRow row;
  row.path = stream.node_dir;
  for (const auto& part : safe_components(stream.path)) row.path += "/" + part;
  row.file = row.path;
  row.sequence = stream.sequence;
  row.first_seen = stream.first_seen;
  return row;
}

/// Calls `each` with every directory that `path` is in, from the outermost on, until it returns false.
template <typename Each>
bool each_directory(const std::string& path, Each&& each) {
  for (auto slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    if (!each(path.substr(0, slash))) return false;
  }
  return true;
}

}  // namespace

std::vector<std::string> safe_components(std::string_view path) {
  std::vector<std::string> out;
  while (!path.empty()) {
    const auto slash = path.find('/');
    std::string part(path.substr(0, slash));
    path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
    if (part.empty()) continue;
    if (part == "." || part == "..") {
      part = part.size() == 1 ? "%2E" : "%2E%2E";
    }
    for (char& c : part) {
      if (c == '\0') c = '_';
    }
    if (part.size() > kMaxName - kSuffixRoom) {
      const std::uint64_t sum = digest(as_bytes(part));
      part.resize(kMaxName - kSuffixRoom - 17);
      part += "~" + to_string(StreamId{sum, 0}).substr(0, 16);
    }
    out.push_back(std::move(part));
  }
  if (out.empty()) out.emplace_back("_");
  return out;
}

MirrorSink::MirrorSink(MirrorTree tree, CursorStore& store)
    : tree_(std::move(tree)), key_("mirror:" + tree_.path()), store_(store), losses_(tree_) {}

Result<std::unique_ptr<MirrorSink>> MirrorSink::open(const std::string& directory, CursorStore& store) {
  auto tree = MirrorTree::open(directory);
  if (!tree) return tl::unexpected(tree.error());
  std::unique_ptr<MirrorSink> sink(new MirrorSink(std::move(*tree), store));
  if (auto ok = sink->recover(); !ok) return tl::unexpected(ok.error());
  return sink;
}

/// Finishes a renaming that a crash interrupted: the store says the new name, the file still has the plain one. The
/// plain name belongs to another stream only once that is in the store.
Status MirrorSink::recover() {
  for (auto& [id, row] : store_.mirrors(key_)) {
    Mirror mirror;
    mirror.row = row;
    mirror.position = store_.cursor(key_, id).value_or(FileOffset{});
    if (row.file == row.path) live_[row.path] = id;
    mirrors_.emplace(id, std::move(mirror));
  }
  for (const auto& [id, mirror] : mirrors_) {
    if (mirror.row.file == mirror.row.path || live_.contains(mirror.row.path)) continue;
    if (tree_.is_directory(mirror.row.path)) continue;
    const auto renamed = tree_.type(mirror.row.file);
    if (!renamed) return tl::unexpected(renamed.error());
    const auto plain = tree_.type(mirror.row.path);
    if (!plain) return tl::unexpected(plain.error());
    if (*renamed == 0 && *plain != 0) {
      if (auto ok = tree_.rename(mirror.row.path, mirror.row.file); !ok) return ok;
    }
  }
  return {};
}

Status MirrorSink::move_mirror(StreamId id, Mirror& mirror, const std::string& to) {
  CursorStore::MirrorRow row = mirror.row;
  const std::string from = std::exchange(row.file, to);
  // In this order, see recover().
  if (auto ok = store_.save_mirrors(key_, {{id, row}}); !ok) return ok;
  if (auto ok = tree_.rename(from, to); !ok) return ok;  // mirror.row keeps the name that the file still has
  mirror.row = row;
  return {};
}

/// Frees the plain name of `path` for a newer stream.
Status MirrorSink::make_way(const std::string& path) {
  if (const auto live = live_.find(path); live != live_.end()) {
    Mirror& older = mirrors_.at(live->second);
    if (auto ok = move_mirror(live->second, older, incarnation_name(older.row, live->second)); !ok) return ok;
    live_.erase(live);
    return {};
  }
  const auto taken = tree_.type(path);
  if (!taken) return tl::unexpected(taken.error());
  return *taken != 0 ? set_aside(path) : Status{};
}

Status MirrorSink::set_aside(const std::string& path) {
  // A file that the store knows nothing of (its state was lost, or somebody put it there) is kept, not overwritten.
  const std::string aside = path + "@" + to_compact_utc(wall_now()) + "-unknown";
  log::warn("a file that is no known mirror is in the way, it was renamed",
            {{"path", tree_.path() + "/" + path}, {"to", aside}});
  return tree_.rename(path, aside);
}

/// Frees the names of the directories of `path`, where the source had a file before.
Status MirrorSink::make_way_for_directories(const std::string& path) {
  const bool there = tree_.is_directory(path.substr(0, path.rfind('/')));
  Status status;
  each_directory(path, [&](const std::string& directory) {
    if (live_.contains(directory) || (!there && tree_.type(directory) == mode_t{S_IFREG})) status = make_way(directory);
    return status.has_value();
  });
  return status;
}

/// Neither it nor a directory of it is the name of a mirror, and nothing stands there.
bool MirrorSink::is_free(const std::string& path) const {
  const auto unused = [&](const std::string& name) { return !live_.contains(name); };
  return unused(path) && each_directory(path, unused) && tree_.type(path) == mode_t{0};
}

/// The names of all that need nobody to make way, in one transaction. Of the files none is made before.
void MirrorSink::expect(std::span<const StreamMeta> streams) {
  CursorStore::NamedMirrors rows;
  std::set<std::string> directories;  // that will be made
  for (const StreamMeta& stream : streams) {
    if (mirrors_.contains(stream.stream)) continue;
    auto row = plain_row(stream);
    if (directories.contains(row.path) || !is_free(row.path)) continue;
    each_directory(row.path, [&](std::string directory) { return directories.insert(std::move(directory)), true; });
    live_[row.path] = stream.stream;
    mirrors_[stream.stream].row = row;
    rows.emplace_back(stream.stream, std::move(row));
  }
  if (rows.empty() || store_.save_mirrors(key_, rows)) return;
  for (const auto& [id, row] : rows) {
    live_.erase(row.path);
    mirrors_.erase(id);
  }
}

/// The entry of a stream that is seen for the first time, with a name of its own.
Status MirrorSink::enter(const StreamMeta& stream) {
  Mirror mirror;
  mirror.row = plain_row(stream);
  if (auto ok = make_way_for_directories(mirror.row.path); !ok) return ok;
  const auto live = live_.find(mirror.row.path);
  // A directory stays: there are mirrors in it.
  const bool newest = (live == live_.end() || mirrors_.at(live->second).row.sequence < stream.sequence) &&
                      !tree_.is_directory(mirror.row.path);
  if (newest) {
    if (auto ok = make_way(mirror.row.path); !ok) return ok;
  } else {
    mirror.row.file = incarnation_name(mirror.row, stream.stream);
  }
  if (auto ok = store_.save_mirrors(key_, {{stream.stream, mirror.row}}); !ok) return ok;
  if (newest) live_[mirror.row.path] = stream.stream;
  mirrors_.emplace(stream.stream, std::move(mirror));
  return {};
}

Result<FileOffset> MirrorSink::open_stream(const StreamMeta& stream, FileOffset cursor) {
  if (!mirrors_.contains(stream.stream)) {
    if (auto ok = enter(stream); !ok) return tl::unexpected(ok.error());
  }
  Mirror& mirror = mirrors_.at(stream.stream);
  const auto fd = descriptor(stream.stream, mirror);  // empty files have mirrors too
  if (!fd) return tl::unexpected(fd.error());
  struct stat status {};
  if (::fstat(*fd, &status) != 0) return fail_errno(errno, tree_.path() + "/" + mirror.row.file);
  const FileOffset size{static_cast<std::uint64_t>(status.st_size)};
  if (size < cursor && mirror.position >= cursor) {
    log::warn("a mirror is shorter than it was, completing it",
              {{"path", tree_.path() + "/" + mirror.row.file}, {"bytes", size}});
    cursor = size;
  } else if (size < cursor && ::ftruncate(*fd, static_cast<off_t>(cursor.raw)) != 0) {
    // What precedes the first byte wanted is a hole, so that the length always tells how far the mirror goes.
    return fail_errno(errno, tree_.path() + "/" + mirror.row.file);
  }
  mirror.position = cursor;
  return cursor;
}

Result<int> MirrorSink::descriptor(StreamId id, Mirror& mirror) {
  if (mirror.is_open) {
    recent_.splice(recent_.begin(), recent_, mirror.recent);
    return mirror.fd.get();
  }
  auto fd = tree_.open_file(mirror.row.file);
  if (!fd) return tl::unexpected(fd.error());
  if (recent_.size() >= max_open()) close(mirrors_.at(recent_.back()));
  mirror.fd = std::move(*fd);
  mirror.is_open = true;
  recent_.push_front(id);
  mirror.recent = recent_.begin();
  return mirror.fd.get();
}

void MirrorSink::close(Mirror& mirror) {
  const bool one_by_one = dirty_.size() <= max_fsync();  // else the checkpoint syncs all
  if (one_by_one && dirty_.contains(*mirror.recent)) closed_dirty_.push_back(std::move(mirror.fd));
  recent_.erase(mirror.recent);
  mirror.fd.reset();
  mirror.is_open = false;
}

Status MirrorSink::write(const StreamMeta& stream, FileOffset offset, std::span<const std::byte> bytes, WallTime) {
  Mirror& mirror = mirrors_.at(stream.stream);
  const auto fd = descriptor(stream.stream, mirror);
  if (!fd) return tl::unexpected(fd.error());
  // Written behind its end, a mirror that somebody cut would be long again, and full of zeros.
  struct stat status {};
  if (::fstat(*fd, &status) == 0 && static_cast<std::uint64_t>(status.st_size) < mirror.position.raw) {
    spoil(stream.stream, mirror, Condition::kCut);
    return fail(ErrorCode::kWouldBlock, tree_.path() + "/" + mirror.row.file + ": was cut short");
  }
  const FileOffset end = offset + bytes.size();
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(*fd, bytes.data(), bytes.size(), static_cast<off_t>(offset.raw));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, tree_.path() + "/" + mirror.row.file);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    offset = offset + static_cast<std::uint64_t>(n);
  }
  mirror.position = end;
  dirty_.insert(stream.stream);
  return {};
}

Status MirrorSink::lose(const StreamMeta& stream, ByteRange range, wire::LossReason reason) {
  Mirror& mirror = mirrors_.at(stream.stream);
  const auto fd = descriptor(stream.stream, mirror);
  if (!fd) return tl::unexpected(fd.error());
  // The hole keeps every later byte at its own offset; what it is stands in a list beside the mirrors.
  struct stat status {};
  if (::fstat(*fd, &status) != 0) return fail_errno(errno, tree_.path() + "/" + mirror.row.file);
  if (static_cast<std::uint64_t>(status.st_size) < range.to.raw &&
      ::ftruncate(*fd, static_cast<off_t>(range.to.raw)) != 0) {
    return fail_errno(errno, tree_.path() + "/" + mirror.row.file);
  }
  if (auto ok = losses_.add(stream.stream, range, reason, mirror.row.file); !ok) return ok;
  mirror.position = range.to;
  dirty_.insert(stream.stream);
  return {};
}

Status MirrorSink::seal(const StreamMeta& stream, FileOffset) {
  Mirror& mirror = mirrors_.at(stream.stream);
  if (mirror.is_open) close(mirror);
  return {};
}

/// A collector's own clean-up, or an editor, may have been at it since it was opened.
MirrorSink::Condition MirrorSink::condition_of(const Mirror& mirror) const {
  struct stat there {};
  if (::fstatat(tree_.fd(), mirror.row.file.c_str(), &there, AT_SYMLINK_NOFOLLOW) != 0) return Condition::kGone;
  struct stat ours = there;
  if (mirror.is_open && ::fstat(mirror.fd.get(), &ours) != 0) return Condition::kGone;
  if (ours.st_ino != there.st_ino || ours.st_dev != there.st_dev) return Condition::kReplaced;
  return static_cast<std::uint64_t>(there.st_size) < mirror.position.raw ? Condition::kCut : Condition::kGood;
}

Status MirrorSink::prepare_checkpoint() {
  if (auto ok = tree_.keep(); !ok) return ok;
  for (auto it = dirty_.begin(); it != dirty_.end();) {
    Mirror& mirror = mirrors_.at(*it);
    const Condition condition = condition_of(mirror);
    if (condition == Condition::kGood) {
      ++it;
      continue;
    }
    if (condition == Condition::kReplaced) {
      if (auto ok = set_aside(mirror.row.file); !ok) return ok;
    }
    const StreamId id = *it++;
    spoil(id, mirror, condition);
  }
  return {};
}

/// Takes it out of the next checkpoint; the consumer opens it again.
void MirrorSink::spoil(StreamId id, Mirror& mirror, Condition how) {
  if (std::find(spoilt_.begin(), spoilt_.end(), id) != spoilt_.end()) return;
  log::error("somebody changed a mirror, it is completed from the source",
             {{"path", tree_.path() + "/" + mirror.row.file},
              {"how", how == Condition::kCut ? "cut short" : "deleted, moved or replaced"}});
  if (mirror.is_open) close(mirror);
  dirty_.erase(id);
  spoilt_.push_back(id);
}

Checkpoint MirrorSink::checkpoint() {
  Checkpoint out;
  const bool names = tree_.take_names_changed();
  const bool whole = names || dirty_.size() + closed_dirty_.size() > max_fsync();
  if (whole && (names || !dirty_.empty())) out.filesystem = UniqueFd(::fcntl(tree_.fd(), F_DUPFD_CLOEXEC, 0));
  for (const StreamId id : dirty_) {
    const Mirror& mirror = mirrors_.at(id);
    out.positions.push_back({id, mirror.position});
    if (!whole && mirror.is_open) out.files.emplace_back(::fcntl(mirror.fd.get(), F_DUPFD_CLOEXEC, 0));
  }
  if (!whole) {
    for (auto& fd : closed_dirty_) out.files.push_back(std::move(fd));
  }
  closed_dirty_.clear();
  dirty_.clear();
  return out;
}

}  // namespace fantail
