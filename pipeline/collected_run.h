#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "pipeline/result_journal.h"

namespace fantail::pipeline {

/// The results of one run: a directory with a journal for each task. One thread.
class CollectedRun {
 public:
  /// Opens `directory`, or begins it for these tasks. `sequence`: the last number given to a stream here; counted on.
  static Result<std::unique_ptr<CollectedRun>> begin(const std::filesystem::path& directory,
                                                     const std::vector<std::string>& tasks, std::uint64_t& sequence);
  /// What is there. kNotFound: nothing, or not enough of it to be a run.
  static Result<std::unique_ptr<CollectedRun>> open(const std::filesystem::path& directory, std::uint64_t& sequence);

  std::string id() const { return directory_.filename().string(); }
  const std::filesystem::path& directory() const { return directory_; }
  std::size_t tasks() const { return journals_.size(); }
  ResultJournal& journal(std::size_t task) { return journals_.at(task); }
  const ResultJournal& journal(std::size_t task) const { return journals_.at(task); }
  /// Which task a result is of, by its id; nothing: of none.
  struct Place {
    std::size_t task;
    std::uint64_t number;
  };
  std::optional<Place> find(std::string_view id) const;
  std::uint64_t count() const;

  /// Since when it is over; nothing: it is not.
  std::optional<WallTime> finished() const { return finished_; }
  Status finish(WallTime now);
  /// There is more to come after all: for consumers its journals go on as other streams.
  Status reopen(std::uint64_t& sequence);
  /// Its results are where they should be: a collector that is started again has nothing to do for it.
  bool settled() const { return settled_; }
  Status settle();

 private:
  explicit CollectedRun(std::filesystem::path directory) : directory_(std::move(directory)) {}
  Status open_journals(const std::vector<std::string>& tasks, std::uint64_t& sequence);

  std::filesystem::path directory_;
  std::vector<ResultJournal> journals_;
  std::optional<WallTime> finished_;
  bool settled_ = false;
};

}  // namespace fantail::pipeline
