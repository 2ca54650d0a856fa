#include "consumer/file_sink.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "common/base/signals.h"

namespace fantail {
namespace {

constexpr std::size_t kMaxOpen = 256;          // less where few descriptors are allowed
constexpr std::size_t kMaxIdleRotations = 64;  // at one checkpoint, of files that nothing is written to

std::size_t max_open() { return std::min<std::size_t>(kMaxOpen, descriptor_limit() / 8); }

}  // namespace

FileSink::FileSink(PathTemplate path, RecordFormat format, LineRules rules, Rotation rotation, CursorStore& store,
                   WallClock clock)
    : LineSink(std::move(format), std::move(rules), std::nullopt),
      path_(std::move(path)),
      key_("file:" + std::filesystem::absolute(path_.text()).lexically_normal().string()),
      rotation_(rotation),
      store_(store),
      clock_(std::move(clock)) {}
FileSink::~FileSink() = default;

Result<std::unique_ptr<FileSink>> FileSink::open(PathTemplate path, RecordFormat format, LineRules rules,
                                                 Rotation rotation, CursorStore& store, WallClock clock) {
  std::unique_ptr<FileSink> sink(
      new FileSink(std::move(path), std::move(format), std::move(rules), rotation, store, std::move(clock)));
  if (auto ok = sink->recover(); !ok) return tl::unexpected(ok.error());
  return sink;
}

/// Renames the files that were to be renamed when the program ended. Each has exactly the length in the store.
Status FileSink::recover() {
  std::vector<Checkpoint::Output> changed;
  std::set<std::string> directories;
  for (const auto& [path, row] : store_.outputs(key_)) {
    if (row.rotated_to.empty()) continue;
    Checkpoint::Output next = row;
    next.rotated_to.clear();
    if (const auto renamed = rename_finished(path, row.rotated_to, row.length)) {
      next.gone = true;
      directories.insert(directory_of(row.rotated_to));
    } else {
      log::warn("cannot rotate an output, going on in it", {{"error", renamed.error()}});
    }
    changed.push_back(std::move(next));
  }
  if (changed.empty()) return {};
  if (auto ok = sync_directories(directories); !ok) return ok;
  return save(std::move(changed));
}

/// `known`: the file is the one that the store knows. Before the first byte goes into a new file its length is stored,
/// so that what follows is cut off again after a crash.
Status FileSink::open_output(const std::string& path, Output& output, bool known) {
  const auto& rows = store_.outputs(key_);
  const auto row = known ? rows.find(path) : rows.end();
  std::optional<std::uint64_t> committed;
  if (row != rows.end()) committed = row->second.length;
  const WallTime now = clock_();
  if (auto ok = output.file.open(committed, now, directories_); !ok) return ok;
  const std::uint64_t length = output.file.length();
  output.began = {};
  if (length > 0) output.began = row != rows.end() && row->second.began.ns != 0 ? row->second.began : now;
  if (committed != length) {
    if (auto ok = save({{path, length, output.began}}); !ok) {
      output.file.close();
      return ok;
    }
  }
  output.committed = output.checkpointed = length;
  output.moved = false;
  return {};
}

FileSink::Outputs::iterator FileSink::add_output(const std::string& path) {
  make_room_for_outputs(1);
  return outputs_.emplace(path, Output{OutputFile(path, is_compressed_name(path) ? &frames_ : nullptr)}).first;
}

/// Drops those that were used longest ago and have nothing in memory. Others stay until the next checkpoint is stored.
void FileSink::make_room_for_outputs(std::size_t count) {
  if (outputs_.size() + count <= max_open()) return;
  std::vector<Outputs::iterator> idle;
  for (auto each = outputs_.begin(); each != outputs_.end(); ++each) {
    const Output& o = each->second;
    const bool busy = o.dirty || o.leaving || o.checkpointed != o.committed || o.file.waiting_bytes() > 0;
    if (!busy) idle.push_back(each);
  }
  std::sort(idle.begin(), idle.end(), [](const auto& a, const auto& b) { return a->second.used < b->second.used; });
  idle.resize(std::min(idle.size(), outputs_.size() + count - max_open()));
  for (const auto& each : idle) drop_output(each);
}

/// Forgets an output without anything in memory; the store has its length.
void FileSink::drop_output(Outputs::iterator output) {
  if (current_ == &output->second) current_ = nullptr;
  outputs_.erase(output);
}

Result<FileSink::Output*> FileSink::output_for(const StreamMeta& stream, WallTime time) {
  constexpr std::int64_t kDayNs = 86'400'000'000'000;
  const std::int64_t day = path_.dated() ? time.ns / kDayNs : 0;
  if (current_ == nullptr || current_stream_ != &stream || current_day_ != day) {
    std::string path = path_.expand(stream, time);
    auto found = outputs_.find(path);
    if (found == outputs_.end()) found = add_output(path);
    current_ = &found->second;
    current_->used = mono_now();
    current_stream_ = &stream;
    current_day_ = day;
    current_path_ = std::move(path);
  }
  if (!current_->file.is_open()) {
    if (auto ok = open_output(current_path_, *current_, true); !ok) return tl::unexpected(ok.error());
  }
  return current_;
}

Status FileSink::make_room(const StreamMeta& stream, WallTime time) {
  const auto output = output_for(stream, time);
  if (!output) return tl::unexpected(output.error());
  if ((*output)->file.waiting_bytes() < OutputFile::kBufferBytes) return {};
  if ((*output)->leaving) return fail(ErrorCode::kWouldBlock, "output " + current_path_ + ": being rotated");
  return (*output)->file.write_out();
}

void FileSink::emit(const StreamMeta&, std::string_view bytes) {
  Output& output = *current_;
  output.dirty = true;
  if (output.leaving) {
    output.file.keep(bytes);
    return;
  }
  if (output.began.ns == 0) output.began = clock_();
  output.file.append(bytes);
}

Status FileSink::flush(MonoTime now) {
  emit_overdue(now);
  Status result = finish_leaving();
  for (auto& [path, output] : outputs_) {
    if (output.leaving || output.file.waiting_bytes() == 0) continue;
    if (auto ok = write_out(path, output); !ok) result = ok;
  }
  return result;
}

Status FileSink::write_out(const std::string& path, Output& output) {
  if (!output.file.is_open()) {  // these lines came while the file before was leaving
    if (auto ok = open_output(path, output, true); !ok) return ok;
    output.began = clock_();
  }
  return output.file.write_out();
}

// ---- checkpoints

Status FileSink::prepare_checkpoint() {
  if (rotation_.wanted()) open_due();
  for (auto& [path, output] : outputs_) {
    if (!output.file.is_open() || output.leaving) continue;
    if (auto ok = output.file.finish_frame(); !ok) return ok;
    const auto place = output.file.place();
    output.moved = place == OutputFile::Place::kMoved;
    if (place == OutputFile::Place::kDeleted) {
      if (auto ok = carry_over(path, output); !ok) return ok;
    }
  }
  return open_directories();
}

/// The checkpoint makes their entries durable. One that is gone has none.
Status FileSink::open_directories() {
  directories_open_.clear();
  for (const auto& directory : directories_) {
    UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd && errno != ENOENT && errno != ENOTDIR) return fail_errno(errno, "directory " + directory);
    if (fd) directories_open_.push_back(std::move(fd));
  }
  return {};
}

/// Somebody deleted the file. What was committed is theirs to delete; what came since goes into a new one.
Status FileSink::carry_over(const std::string& path, Output& output) {
  Output next{OutputFile(path, is_compressed_name(path) ? &frames_ : nullptr)};
  if (auto ok = open_output(path, next, false); !ok) return ok;
  const std::uint64_t before = next.file.length();
  if (auto ok = next.file.copy_from(output.file, output.committed); !ok) return ok;
  const std::uint64_t carried = next.file.length() - before;
  log::warn("an output was deleted, beginning another with what was not committed yet",
            {{"path", path}, {"bytes", carried}});
  if (carried > 0) next.began = clock_();
  next.dirty = carried > 0 || output.dirty;
  next.used = output.used;
  output = std::move(next);
  return {};
}

/// Files whose time has come although nothing is written to them. Opening cuts them to what is committed.
void FileSink::open_due() {
  const WallTime now = clock_();
  std::vector<std::string> due;
  for (const auto& [path, row] : store_.outputs(key_)) {
    if (due.size() < kMaxIdleRotations && !outputs_.contains(path) && rotation_.due(row.length, row.began, now)) {
      due.push_back(path);
    }
  }
  for (const auto& path : due) {
    Status status;
    struct stat there {};
    if (::stat(path.c_str(), &there) != 0 && errno == ENOENT) {
      status = save({{.path = path, .gone = true}});
    } else {
      const auto output = add_output(path);
      output->second.used = mono_now();
      status = open_output(path, output->second, true);
      if (!status) drop_output(output);
    }
    if (status) continue;
    if (const auto n = rotation_log_.occurred(mono_now())) {
      log::warn("cannot rotate an output, going on in it", {{"error", status.error()}, {"count", *n}});
    }
  }
}

Checkpoint FileSink::checkpoint() {
  const WallTime now = clock_();
  Checkpoint out;
  out.positions = take_positions();
  for (auto& [path, output] : outputs_) {
    if (!output.file.is_open() || output.leaving) continue;
    const std::uint64_t length = output.file.length();
    const bool due = !output.moved && rotation_.due(length, output.began, now);
    if (!output.dirty && !output.moved && !due) continue;
    Checkpoint::Output row{path, length, output.began};
    if (output.moved) {
      row.gone = true;
      output.leaving = Leaving{};
    } else if (due) {
      row.rotated_to = rotated_name(file_of(path), now);
      output.leaving = Leaving{row.rotated_to};
    }
    if (output.dirty) out.files.push_back(output.file.duplicate());
    output.dirty = false;
    output.checkpointed = length;
    out.outputs.push_back(std::move(row));
  }
  for (auto& directory : std::exchange(directories_open_, {})) out.files.push_back(std::move(directory));
  directories_.clear();
  return out;
}

void FileSink::stored() {
  for (auto& [path, output] : outputs_) {
    if (output.leaving) {
      output.leaving->stored = true;
    } else {
      output.committed = output.checkpointed;
    }
  }
  (void)finish_leaving();  // flush() tries again, and tells
  make_room_for_outputs(0);
}

/// Renames the files whose last checkpoint is stored, and lets the store forget them. Any moment is good for a crash.
Status FileSink::finish_leaving() {
  const auto ready = [](const Output& o) { return o.leaving && o.leaving->stored; };
  if (std::none_of(outputs_.begin(), outputs_.end(), [&](const auto& o) { return ready(o.second); })) return {};
  std::vector<Checkpoint::Output> changed;
  std::set<std::string> directories;
  std::set<std::string> staying;
  for (auto& [path, output] : outputs_) {
    if (!ready(output) || output.leaving->to.empty()) continue;
    const auto renamed = rename_finished(path, output.leaving->to, output.file.length());
    if (renamed) {
      changed.push_back({.path = path, .gone = true});
      directories.insert(directory_of(output.leaving->to));
      continue;
    }
    if (const auto n = rotation_log_.occurred(mono_now())) {
      log::warn("cannot rotate an output, going on in it", {{"error", renamed.error()}, {"count", *n}});
    }
    changed.push_back({path, output.file.length(), output.began});
    staying.insert(path);
  }
  if (auto ok = sync_directories(directories); !ok) return ok;
  if (!changed.empty()) {
    if (auto ok = save(std::move(changed)); !ok) return ok;
  }
  for (auto at = outputs_.begin(); at != outputs_.end();) {
    const auto each = at++;
    Output& output = each->second;
    if (!ready(output)) continue;
    const Leaving left = *std::exchange(output.leaving, std::nullopt);
    if (staying.contains(each->first)) {
      output.committed = output.checkpointed;
      continue;
    }
    log::info(left.to.empty() ? "an output was moved away, the next lines begin another" : "output rotated",
              {{"path", each->first}, {"to", left.to}, {"bytes", output.file.length()}});
    output.file.close();
    if (output.file.waiting_bytes() == 0) drop_output(each);
  }
  return {};
}

bool FileSink::drained() const {
  return std::all_of(outputs_.begin(), outputs_.end(),
                     [](const auto& entry) { return entry.second.file.waiting_bytes() == 0; });
}

}  // namespace fantail
