#include "consumer/mirror_sink.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>

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

MirrorSink::MirrorSink(std::string directory, UniqueFd root, CursorStore& store)
    : directory_(std::move(directory)), key_("mirror:" + directory_), root_(std::move(root)), store_(store) {}

Result<std::unique_ptr<MirrorSink>> MirrorSink::open(const std::string& directory, CursorStore& store) {
  std::error_code ec;
  // However the directory is written, it is the same output.
  auto absolute = std::filesystem::absolute(directory, ec).lexically_normal();
  if (!absolute.has_filename() && absolute.has_relative_path()) absolute = absolute.parent_path();
  std::filesystem::create_directories(absolute, ec);
  UniqueFd root(::open(absolute.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root) {
    return fail(ErrorCode::kInvalid, "--output 'mirror:" + directory +
                                         "': cannot use the directory: " + std::generic_category().message(errno) +
                                         "; name one that this user may write to");
  }
  // Two would take each other's mirrors for files that somebody else put there.
  if (::flock(root.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return fail(ErrorCode::kBusy,
                "--output 'mirror:" + directory + "': another consumer mirrors into this directory; give each its own");
  }
  std::unique_ptr<MirrorSink> sink(new MirrorSink(absolute.string(), std::move(root), store));
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
    if (is(S_IFDIR, mirror.row.path)) continue;
    const auto renamed = exists(mirror.row.file);
    if (!renamed) return tl::unexpected(renamed.error());
    const auto plain = exists(mirror.row.path);
    if (!plain) return tl::unexpected(plain.error());
    if (!*renamed && *plain) {
      if (auto ok = rename_file(mirror.row.path, mirror.row.file); !ok) return ok;
    }
  }
  return {};
}

/// Opens (and makes) the directory of a DIR-relative name, following no link on the way.
Result<UniqueFd> MirrorSink::parent_of(const std::string& relative, std::string& name) {
  UniqueFd at(::fcntl(root_.get(), F_DUPFD_CLOEXEC, 0));
  std::string_view rest = relative;
  for (;;) {
    const auto slash = rest.find('/');
    const std::string part(rest.substr(0, slash));
    if (slash == std::string_view::npos) {
      name = part;
      return at;
    }
    if (::mkdirat(at.get(), part.c_str(), 0755) == 0) {
      names_changed_ = true;
    } else if (errno != EEXIST) {
      return fail_errno(errno, directory_ + "/" + relative);
    }
    UniqueFd next(::openat(at.get(), part.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!next) {
      return fail_errno(errno,
                        directory_ + "/" + relative + ": '" + part + "' is no directory (links are not followed)");
    }
    at = std::move(next);
    rest.remove_prefix(slash + 1);
  }
}

Result<bool> MirrorSink::exists(const std::string& relative) {
  std::string name;
  const auto parent = parent_of(relative, name);
  if (!parent) return tl::unexpected(parent.error());
  return ::faccessat(parent->get(), name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/// There is something of this type (S_IF...) at a DIR-relative name; links are not followed.
bool MirrorSink::is(mode_t type, const std::string& relative) {
  std::string name;
  const auto parent = parent_of(relative, name);
  struct stat status {};
  return parent && ::fstatat(parent->get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
         (status.st_mode & S_IFMT) == type;
}

Status MirrorSink::rename_file(const std::string& from, const std::string& to) {
  std::string from_name;
  std::string to_name;
  const auto from_dir = parent_of(from, from_name);
  if (!from_dir) return tl::unexpected(from_dir.error());
  const auto to_dir = parent_of(to, to_name);
  if (!to_dir) return tl::unexpected(to_dir.error());
  if (::renameat(from_dir->get(), from_name.c_str(), to_dir->get(), to_name.c_str()) != 0 && errno != ENOENT) {
    return fail_errno(errno, "cannot rename " + directory_ + "/" + from);
  }
  names_changed_ = true;
  return {};
}

Status MirrorSink::move_mirror(StreamId id, Mirror& mirror, const std::string& to) {
  CursorStore::MirrorRow row = mirror.row;
  const std::string from = std::exchange(row.file, to);
  // In this order, see recover().
  if (auto ok = store_.save_mirror(key_, id, row); !ok) return ok;
  if (auto ok = rename_file(from, to); !ok) return ok;  // mirror.row keeps the name that the file still has
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
  const auto taken = exists(path);
  if (!taken) return tl::unexpected(taken.error());
  return *taken ? set_aside(path) : Status{};
}

Status MirrorSink::set_aside(const std::string& path) {
  // A file that the store knows nothing of (its state was lost, or somebody put it there) is kept, not overwritten.
  const std::string aside = path + "@" + to_compact_utc(wall_now()) + "-unknown";
  log::warn("a file that is no known mirror is in the way, it was renamed",
            {{"path", directory_ + "/" + path}, {"to", aside}});
  return rename_file(path, aside);
}

/// Frees the names of the directories of `path`, where the source had a file before.
Status MirrorSink::make_way_for_directories(const std::string& path) {
  for (auto slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    const std::string directory = path.substr(0, slash);
    if (!live_.contains(directory) && !is(S_IFREG, directory)) continue;
    if (auto ok = make_way(directory); !ok) return ok;
  }
  return {};
}

/// The entry of a stream that is seen for the first time, with a name of its own.
Status MirrorSink::enter(const StreamMeta& stream) {
  Mirror mirror;
  mirror.row.path = stream.node_dir;
  for (const auto& part : safe_components(stream.path)) mirror.row.path += "/" + part;
  mirror.row.sequence = stream.sequence;
  mirror.row.first_seen = stream.first_seen;
  mirror.row.file = mirror.row.path;
  if (auto ok = make_way_for_directories(mirror.row.path); !ok) return ok;
  const auto live = live_.find(mirror.row.path);
  // A directory stays: there are mirrors in it.
  const bool newest = (live == live_.end() || mirrors_.at(live->second).row.sequence < stream.sequence) &&
                      !is(S_IFDIR, mirror.row.path);
  if (newest) {
    if (auto ok = make_way(mirror.row.path); !ok) return ok;
  } else {
    mirror.row.file = incarnation_name(mirror.row, stream.stream);
  }
  if (auto ok = store_.save_mirror(key_, stream.stream, mirror.row); !ok) return ok;
  if (newest) live_[mirror.row.path] = stream.stream;
  mirrors_.emplace(stream.stream, std::move(mirror));
  return {};
}

Result<FileOffset> MirrorSink::open_stream(const StreamMeta& stream, FileOffset cursor) {
  const bool known = mirrors_.contains(stream.stream);
  if (!known) {
    if (auto ok = enter(stream); !ok) return tl::unexpected(ok.error());
  }
  Mirror& mirror = mirrors_.at(stream.stream);
  const auto fd = descriptor(stream.stream, mirror);  // empty files have mirrors too
  if (!fd) return tl::unexpected(fd.error());
  struct stat status {};
  if (::fstat(*fd, &status) != 0) return fail_errno(errno, directory_ + "/" + mirror.row.file);
  const FileOffset size{static_cast<std::uint64_t>(status.st_size)};
  if (size < cursor && known) {
    log::warn("a mirror is shorter than it was, completing it",
              {{"path", directory_ + "/" + mirror.row.file}, {"bytes", size}});
    cursor = size;
  } else if (size < cursor && ::ftruncate(*fd, static_cast<off_t>(cursor.raw)) != 0) {
    // What precedes the first byte wanted is a hole, so that the length always tells how far the mirror goes.
    return fail_errno(errno, directory_ + "/" + mirror.row.file);
  }
  mirror.position = cursor;
  return cursor;
}

Result<int> MirrorSink::descriptor(StreamId id, Mirror& mirror) {
  if (mirror.is_open) {
    recent_.splice(recent_.begin(), recent_, mirror.recent);
    return mirror.fd.get();
  }
  std::string name;
  const auto parent = parent_of(mirror.row.file, name);
  if (!parent) return tl::unexpected(parent.error());
  UniqueFd fd(::openat(parent->get(), name.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd && errno == ENOENT) {
    fd = UniqueFd(::openat(parent->get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
    names_changed_ = true;
  }
  if (!fd) return fail_errno(errno, directory_ + "/" + mirror.row.file);
  if (recent_.size() >= max_open()) close(mirrors_.at(recent_.back()));
  mirror.fd = std::move(fd);
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
    return fail(ErrorCode::kWouldBlock, directory_ + "/" + mirror.row.file + ": was cut short");
  }
  const FileOffset end = offset + bytes.size();
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(*fd, bytes.data(), bytes.size(), static_cast<off_t>(offset.raw));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, directory_ + "/" + mirror.row.file);
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
  if (::fstat(*fd, &status) != 0) return fail_errno(errno, directory_ + "/" + mirror.row.file);
  if (static_cast<std::uint64_t>(status.st_size) < range.to.raw &&
      ::ftruncate(*fd, static_cast<off_t>(range.to.raw)) != 0) {
    return fail_errno(errno, directory_ + "/" + mirror.row.file);
  }
  if (auto ok = read_list(); !ok) return ok;
  const std::string what =
      to_string(stream.stream) + "\t" + std::to_string(range.from.raw) + "\t" + std::to_string(range.to.raw);
  if (!listed_->contains(what)) {
    const std::string line = to_iso8601(wall_now()) + "\t" + what + "\t" + std::string(wire::to_string(reason)) + "\t" +
                             mirror.row.file + "\n";
    if (auto ok = append_to_list(line); !ok) return ok;
    listed_->insert(what);
  }
  mirror.position = range.to;
  dirty_.insert(stream.stream);
  return {};
}

/// Which losses the list has: those of before a crash are told again.
Status MirrorSink::read_list() {
  if (listed_) return {};
  std::ifstream list(directory_ + "/.losses.tsv");
  std::set<std::string> listed;
  for (std::string line; std::getline(list, line);) {
    // time, stream, from, to, reason, file
    const auto begin = line.find('\t');
    auto end = begin;
    for (int field = 0; field < 3 && end != std::string::npos; ++field) end = line.find('\t', end + 1);
    if (end != std::string::npos) listed.insert(line.substr(begin + 1, end - begin - 1));
  }
  if (list.bad()) return fail(ErrorCode::kIo, directory_ + "/.losses.tsv: cannot be read");
  listed_ = std::move(listed);
  return {};
}

/// All of the line, or nothing.
Status MirrorSink::append_to_list(const std::string& line) {
  UniqueFd list(::openat(root_.get(), ".losses.tsv", O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0644));
  struct stat before {};
  if (!list || ::fstat(list.get(), &before) != 0) return fail_errno(errno, directory_ + "/.losses.tsv");
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(list.get(), line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      if (done > 0) (void)!::ftruncate(list.get(), before.st_size);
      return fail_errno(error, directory_ + "/.losses.tsv");
    }
    done += static_cast<std::size_t>(n);
  }
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
  if (::fstatat(root_.get(), mirror.row.file.c_str(), &there, AT_SYMLINK_NOFOLLOW) != 0) return Condition::kGone;
  struct stat ours = there;
  if (mirror.is_open && ::fstat(mirror.fd.get(), &ours) != 0) return Condition::kGone;
  if (ours.st_ino != there.st_ino || ours.st_dev != there.st_dev) return Condition::kReplaced;
  return static_cast<std::uint64_t>(there.st_size) < mirror.position.raw ? Condition::kCut : Condition::kGood;
}

Status MirrorSink::keep_root() {
  struct stat status {};
  if (::fstat(root_.get(), &status) == 0 && status.st_nlink > 0) return {};
  std::error_code ec;
  std::filesystem::create_directories(directory_, ec);
  UniqueFd root(::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root) return fail_errno(errno, directory_);
  log::error("the directory of mirrors was removed, it is made again", {{"path", directory_}});
  root_ = std::move(root);
  return {};
}

Status MirrorSink::prepare_checkpoint() {
  if (auto ok = keep_root(); !ok) return ok;
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
             {{"path", directory_ + "/" + mirror.row.file},
              {"how", how == Condition::kCut ? "cut short" : "deleted, moved or replaced"}});
  if (mirror.is_open) close(mirror);
  dirty_.erase(id);
  spoilt_.push_back(id);
}

Checkpoint MirrorSink::checkpoint() {
  Checkpoint out;
  const bool whole = names_changed_ || dirty_.size() + closed_dirty_.size() > max_fsync();
  if (whole && (names_changed_ || !dirty_.empty())) out.filesystem = UniqueFd(::fcntl(root_.get(), F_DUPFD_CLOEXEC, 0));
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
  names_changed_ = false;
  return out;
}

}  // namespace fantail
