#include "pipeline/map.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>

#include "common/json/json.h"
#include "pipeline/generated_jobs.h"

namespace fantail::pipeline {
namespace {

constexpr const char* kTask = "map";

}  // namespace

Result<std::unique_ptr<Map>> Map::start(Config config, const std::vector<std::string>& items) {
  if (config.chunk == 0) return fail(ErrorCode::kInvalid, "Map: a chunk has one item at least");
  std::unique_ptr<Map> map(new Map(std::move(config), items.size()));
  if (auto ok = map->open(items); !ok) return tl::unexpected(ok.error());
  map->thread_ = std::jthread([m = map.get()](const std::stop_token& stop) { m->loop(stop); });
  return map;
}

Status Map::open(const std::vector<std::string>& items) {
  wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_) return fail_errno(errno, "an eventfd");
  auto directory = PrivateDirectory::make();
  if (!directory) return tl::unexpected(directory.error());
  directory_.emplace(std::move(*directory));
  const auto in_it = [&](const std::string& name) { return (directory_->path() / name).string(); };

  std::vector<std::string> chunks;
  for (std::size_t first = 0; first < items.size(); first += config_.chunk) {
    std::string chunk = "[";
    for (std::size_t i = first; i < std::min<std::size_t>(items.size(), first + config_.chunk); ++i) {
      if (const auto value = parse_json(items[i]); !value) {
        return fail(ErrorCode::kInvalid, "Map: item " + std::to_string(i) + ": " + value.error().context);
      }
      if (chunk.size() > 1) chunk += ',';
      chunk += items[i];
    }
    chunks.push_back(chunk + "]");
  }
  CollectorConfig collecting;
  collecting.endpoint = config_.collector.empty() ? "ipc://" + in_it("collector.sock") : config_.collector;
  collecting.publish = "ipc://" + in_it("results.sock");
  collecting.key_file = config_.key_file;
  collecting.state_dir = in_it("collector");
  collecting.stay = true;
  auto collector = Collector::open(collecting);
  if (!collector) return tl::unexpected(collector.error());
  collector_ = std::move(*collector);

  auto jobs = GeneratedJobs::make(chunks);
  if (!jobs) return tl::unexpected(jobs.error());
  Task task;
  task.spec.name = kTask;
  task.spec.retries = config_.retries;
  task.spec.back_off = 10ms;
  task.jobs = std::move(*jobs);
  std::vector<Task> tasks;
  tasks.push_back(std::move(task));
  DistributorConfig distributing;
  distributing.endpoint = config_.endpoint.empty() ? "ipc://" + in_it("distributor.sock") : config_.endpoint;
  distributing.collector = collector_->address();
  distributing.key_file = config_.key_file;
  distributing.state_dir = in_it("distributor");
  Distributor::Hooks hooks;
  hooks.on_dead = [this](JobId job, int, const std::string& letter) {
    const auto value = parse_json(letter);
    dead_[job.number] = value && value->is_object() ? value->value("error", "") : letter;
  };
  auto distributor = Distributor::open(distributing, std::move(tasks), std::move(hooks));
  if (!distributor) return tl::unexpected(distributor.error());
  distributor_ = std::move(*distributor);
  return {};
}

Map::~Map() {
  thread_.request_stop();
  const std::uint64_t one = 1;
  // Full means that it is readable already.
  if (::write(wake_.get(), &one, sizeof one) < 0 && errno != EAGAIN) thread_.detach();
}

void Map::loop(const std::stop_token& stop) {
  bool told = false;
  while (!stop.stop_requested()) {
    Waiter waiter;
    waiter.add_descriptor(wake_.get());
    MonoTime until;
    const MonoTime now = mono_now();
    {
      const std::scoped_lock lock(mutex_);
      const std::size_t work = collector_->turn(now) + (told ? 0 : distributor_->turn(now));
      if (work > 0) progress_.notify_all();
      if (distributor_->ended() && !told) {
        distributor_->flush();
        told = true;
      }
      if (work > 0) continue;
      collector_->add_to(waiter);
      until = collector_->due(now);
      if (!told) {
        distributor_->add_to(waiter);
        until = std::min(until, distributor_->due(now));
      }
    }
    waiter.wait(until - now);
  }
  const std::scoped_lock lock(mutex_);
  distributor_->flush();
  distributor_.reset();  // with a goodbye: the collector would wait for it
  collector_->flush();
}

Result<std::string> Map::result(std::size_t item, Duration timeout) {
  if (item >= size_) return fail(ErrorCode::kInvalid, "Map: there is no item " + std::to_string(item));
  const std::uint64_t chunk = item / config_.chunk + 1;
  std::unique_lock lock(mutex_);
  if (chunk_read_ != chunk) {
    const auto there = [&] {
      if (dead_.contains(chunk)) return true;
      const CollectedRun* run = collector_->current();
      return run != nullptr && run->journal(0).line(chunk).has_value();
    };
    if (timeout == Duration::max()) {
      progress_.wait(lock, there);
    } else if (!progress_.wait_for(lock, timeout, there)) {
      return fail(ErrorCode::kWouldBlock, "Map: item " + std::to_string(item) + " has no result yet");
    }
    if (const auto dead = dead_.find(chunk); dead != dead_.end()) {
      return fail(ErrorCode::kNotFound, "Map: item " + std::to_string(item) + " was given up: " + dead->second);
    }
    const auto line = collector_->current()->journal(0).line(chunk);
    if (!line) return tl::unexpected(line.error());
    const auto value = parse_json(*line, kMaxMessageDepth);
    if (!value || !value->is_object() || !value->value("result", Json()).is_array()) {
      return fail(ErrorCode::kCorrupt, "Map: the result of chunk " + std::to_string(chunk) + " is no list");
    }
    chunk_results_.clear();
    for (const Json& one : (*value)["result"]) chunk_results_.push_back(to_text(one));
    chunk_read_ = chunk;
  }
  const std::size_t place = item % config_.chunk;
  if (place >= chunk_results_.size()) {
    return fail(ErrorCode::kCorrupt, "Map: the result of chunk " + std::to_string(chunk) + " is too short");
  }
  return chunk_results_[place];
}

Result<std::vector<std::string>> Map::results(Duration timeout) {
  std::vector<std::string> out;
  out.reserve(size_);
  const std::optional<MonoTime> until = timeout == Duration::max() ? std::nullopt : std::optional(mono_now() + timeout);
  for (std::size_t i = 0; i < size_; ++i) {
    auto one = result(i, until ? std::max(*until - mono_now(), Duration{}) : Duration::max());
    if (!one) return tl::unexpected(one.error());
    out.push_back(std::move(*one));
  }
  return out;
}

JobWorker::Execute Map::worker(std::function<std::string(std::string_view item)> function) {
  return [function = std::move(function)](const Job& job) -> JobOutcome {
    const auto items = parse_json(job.data, kMaxMessageDepth);
    if (!items || !items->is_array()) throw std::invalid_argument("a chunk of a map must be a list");
    std::string out = "[";
    for (const Json& item : *items) {
      if (out.size() > 1) out += ',';
      out += function(to_text(item));
    }
    return {.exit = 0, .result = out + "]"};
  };
}

}  // namespace fantail::pipeline
