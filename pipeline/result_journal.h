#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/result.h"
#include "common/storage/append_file.h"
#include "common/stream/stream_source.h"

namespace fantail::pipeline {

/// The results of one task in one run, in the order in which they came: a file of JSON lines, which is a stream for
/// consumers. Keeps about 60 bytes of memory for each result. One thread.
class ResultJournal final : public StreamSource {
 public:
  /// Opens DIRECTORY/TASK.jsonl, or begins it. A last line that was cut off is removed. Where the system stopped since,
  /// it is another stream, for bytes may be lost that others have. `sequence`: for one that is begun.
  static Result<ResultJournal> open(const std::filesystem::path& directory, const std::string& task,
                                    std::uint64_t sequence);

  /// Goes on as another stream: the one before is sealed.
  Status begin_stream(std::uint64_t sequence);

  const std::string& task() const { return task_; }
  StreamId stream() const { return stream_; }
  std::uint64_t sequence() const { return sequence_; }
  FileOffset end() const { return {file_.length()}; }
  std::uint64_t count() const { return order_.size(); }
  bool contains(std::uint64_t number) const { return offsets_.contains(number); }
  /// The job whose result came as number `place`, from 0 on.
  std::uint64_t number_at(std::uint64_t place) const { return order_.at(place); }
  /// Where that result ends, its line's end included; behind end() while it is not written.
  std::uint64_t end_of(std::uint64_t place) const {
    const Place& at = offsets_.at(order_.at(place));
    return at.offset + at.bytes + 1;
  }

  /// Takes results for write(); false: there is one of this number already. `line` without its end.
  bool add(std::uint64_t number, std::string_view line);
  /// Writes what add() took. On error it is as if that had not been called.
  Status write();
  bool unwritten() const { return !pending_.empty(); }
  Status sync() const { return file_.sync(); }

  /// The result of a job that was written; kNotFound: there is none.
  Result<std::string> line(std::uint64_t number) const;

  Result<std::size_t> read_at(FileOffset offset, std::span<std::byte> buffer) override {
    return file_.read_at(offset.raw, buffer);
  }
  void mark_sent(FileOffset, std::span<const std::byte>) override {}

 private:
  ResultJournal(AppendFile file, std::string task) : file_(std::move(file)), task_(std::move(task)) {}
  Status replay();

  AppendFile file_;
  std::string task_;
  StreamId stream_;
  std::uint64_t sequence_ = 0;
  std::vector<std::uint64_t> order_;
  struct Place {
    std::uint64_t offset;
    std::uint32_t bytes;
  };
  std::unordered_map<std::uint64_t, Place> offsets_;
  std::string pending_;
  std::size_t pending_count_ = 0;
};

/// The number in "TASK:NUMBER" of this task; nothing: it is no such id.
std::optional<std::uint64_t> number_of(std::string_view id, std::string_view task);

}  // namespace fantail::pipeline
