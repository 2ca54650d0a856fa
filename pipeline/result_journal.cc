#include "pipeline/result_journal.h"

#include <charconv>

#include "common/base/log.h"
#include "common/json/json.h"
#include "common/storage/small_file.h"

namespace fantail::pipeline {
namespace {

/// What {"id":"TASK:NUMBER",... begins with; results are written by ourselves.
std::optional<std::uint64_t> number_in(std::string_view line, std::string_view task) {
  constexpr std::string_view kBegin = R"({"id":")";
  if (!line.starts_with(kBegin)) return std::nullopt;
  line.remove_prefix(kBegin.size());
  return number_of(line.substr(0, line.find('"')), task);
}

}  // namespace

std::optional<std::uint64_t> number_of(std::string_view id, std::string_view task) {
  if (!id.starts_with(task) || id.size() <= task.size() || id[task.size()] != ':') return std::nullopt;
  id.remove_prefix(task.size() + 1);
  std::uint64_t number = 0;
  const auto [at, error] = std::from_chars(id.data(), id.data() + id.size(), number);
  if (error != std::errc{} || at != id.data() + id.size() || number == 0) return std::nullopt;
  return number;
}

Result<ResultJournal> ResultJournal::open(const std::filesystem::path& directory, const std::string& task,
                                          std::uint64_t sequence) {
  const auto path = directory / (task + ".jsonl");
  const auto about_path = directory / (task + ".stream");
  auto file = AppendFile::open(path);
  if (!file && file.error().code == ErrorCode::kNotFound) file = AppendFile::create(path);
  if (!file) return tl::unexpected(file.error());
  ResultJournal journal(std::move(*file), task);
  if (auto ok = journal.replay(); !ok) return tl::unexpected(ok.error());

  const auto text = read_small_file(about_path);
  if (!text && text.error().code != ErrorCode::kNotFound) return tl::unexpected(text.error());
  const auto about = text ? parse_json(*text) : Result<Json>(Json::object());
  if (about && about->is_object()) {
    journal.sequence_ = about->value("sequence", std::uint64_t{0});
    if (about->value("boot", "") == boot_id()) {
      if (const auto id = id_from_hex<StreamId>(about->value("stream", ""))) journal.stream_ = *id;
    }
  }
  if (journal.sequence_ == 0) journal.sequence_ = sequence;
  if (!journal.stream_) {
    if (auto ok = journal.begin_stream(journal.sequence_); !ok) return tl::unexpected(ok.error());
  }
  return journal;
}

Status ResultJournal::begin_stream(std::uint64_t sequence) {
  const auto stream = random_id<StreamId>();
  const Json about = {{"stream", to_string(stream)}, {"sequence", sequence}, {"boot", boot_id()}};
  auto path = file_.path();
  if (auto ok = replace_small_file(path.replace_extension(".stream"), to_text(about)); !ok) return ok;
  stream_ = stream;
  sequence_ = sequence;
  return {};
}

Status ResultJournal::replay() {
  std::optional<std::uint64_t> bad;
  const auto upto = file_.for_each_line([&](std::string_view line, std::uint64_t offset) {
    const auto number = number_in(line, task_);
    if (!number || line.back() != '}') {
      bad = offset;
      return false;
    }
    if (offsets_.emplace(*number, Place{offset, static_cast<std::uint32_t>(line.size())}).second) {
      order_.push_back(*number);
    }
    return true;
  });
  if (!upto) return tl::unexpected(upto.error());
  if (bad) {
    return fail(ErrorCode::kCorrupt, file_.path().string() + ", byte " + std::to_string(*bad) +
                                         ": is no result of task '" + task_ +
                                         "'; move the file away to have these jobs done again");
  }
  if (*upto == file_.length()) return {};
  log::warn("the end of a journal was not complete and is cut off",
            {{"path", file_.path().string()}, {"offset", FileOffset{*upto}}});
  return file_.cut_to(*upto);
}

bool ResultJournal::add(std::uint64_t number, std::string_view line) {
  const Place place{file_.length() + pending_.size(), static_cast<std::uint32_t>(line.size())};
  if (!offsets_.emplace(number, place).second) return false;
  order_.push_back(number);
  pending_ += line;
  pending_ += '\n';
  ++pending_count_;
  return true;
}

Status ResultJournal::write() {
  if (pending_.empty()) return {};
  auto ok = file_.append(pending_);
  if (!ok) {
    for (; pending_count_ > 0; --pending_count_) {
      offsets_.erase(order_.back());
      order_.pop_back();
    }
  }
  pending_.clear();
  pending_count_ = 0;
  return ok;
}

Result<std::string> ResultJournal::line(std::uint64_t number) const {
  const auto found = offsets_.find(number);
  if (found == offsets_.end() || found->second.offset >= file_.length()) {
    return fail(ErrorCode::kNotFound, "job " + task_ + ":" + std::to_string(number) + " has no result yet");
  }
  std::string out(found->second.bytes, '\0');
  const auto n = file_.read_at(found->second.offset, std::as_writable_bytes(std::span(out.data(), out.size())));
  if (!n) return tl::unexpected(n.error());
  if (*n != out.size()) return fail(ErrorCode::kIo, file_.path().string() + ": became shorter");
  return out;
}

}  // namespace fantail::pipeline
