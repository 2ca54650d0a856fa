#include "consumer/commands.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>

#include "common/base/status_options.h"
#include "common/base/table.h"
#include "common/base/text.h"
#include "common/json/json.h"
#include "common/json/report.h"
#include "common/stream/stream_name.h"
#include "consumer/status_report.h"

namespace fantail::consumer {
namespace {

constexpr std::size_t kStreamsPerRequest = 1000;

constexpr const char* kProgram = "fantail-consumer";

int refuse(const Command& command, const Error& error) { return refuse_command(kProgram, command, error); }

/// An exit code: there is nothing more to do.
std::optional<int> read(OptionSet& options, int argc, const char* const* argv,
                        const std::function<std::vector<std::string>()>& problems) {
  log::set_up(log::Level::kWarn);
  return read_command_options(options, argc, argv, problems);
}

std::filesystem::path directory_of(const std::string& state_dir) {
  return state_dir.empty() ? default_state_directory("consumer") : std::filesystem::path(state_dir);
}

/// The state of a consumer that runs or not.
struct Place {
  std::unique_ptr<rpc::AdminClient> running;  ///< null where it does not
  std::optional<StateDirectory> locked;       ///< to change what a consumer that does not run has
  std::optional<CursorStore> store;
};

enum class Purpose : std::uint8_t { kShow, kChange };

Result<Place> open_place(const std::string& state_dir, Purpose purpose) {
  const auto directory = directory_of(state_dir);
  Place place;
  auto running = rpc::AdminClient::find(directory);
  if (!running && running.error().code != ErrorCode::kNotFound) return tl::unexpected(running.error());
  if (running) place.running = std::move(*running);
  auto store = CursorStore::open_existing(directory);
  if (!store) return tl::unexpected(store.error());
  if (purpose == Purpose::kChange && !place.running) {
    auto locked = StateDirectory::open(directory);
    if (!locked) return tl::unexpected(locked.error());
    place.locked = std::move(*locked);
    store = CursorStore::open_existing(directory);  // as it is now that nobody else writes
    if (!store) return tl::unexpected(store.error());
  }
  place.store = std::move(*store);
  return place;
}

std::string table_of(const std::vector<Json>& streams, const StatusOptions& options) {
  Table table({{"STREAM"},
               {"STATE"},
               {"CURSOR", true},
               {"COMMITTED", true},
               {"BEHIND", true},
               {"LOST", true},
               {"NODE"},
               {"PATH"}});
  const auto bytes = [](const Json& value) {
    return value.is_null() ? std::string("?") : human_bytes(value.get<double>());
  };
  for (const Json& stream : streams) {
    if (options.limit > 0 && static_cast<std::uint64_t>(&stream - streams.data()) >= options.limit) break;
    const char* state = stream.at("sealed").get<bool>()      ? "sealed"
                        : stream.at("connected").get<bool>() ? "live"
                                                             : "away";
    table.add({stream.at("stream").get<std::string>().substr(0, 8), state, bytes(stream.at("cursor")),
               bytes(stream.at("committed")), bytes(stream.at("behind")), bytes(stream.at("lost_bytes")),
               text_in(stream, "node_name"), text_in(stream, "path")});
  }
  return "\n" + table.text() + options.rest(streams.size());
}

/// Those with losses first, then those that are furthest behind.
void sort_for_people(std::vector<Json>& streams) {
  const auto key = [](const Json& s) {
    const std::uint64_t behind = s.at("behind").is_null() ? 0 : s.at("behind").get<std::uint64_t>();
    return std::tuple(~s.at("lost_bytes").get<std::uint64_t>(), ~behind, text_in(s, "path"));
  };
  std::sort(streams.begin(), streams.end(), [&](const Json& a, const Json& b) { return key(a) < key(b); });
}

int status(int argc, const char* const* argv, const Command& command) {
  StatusOptions wanted;
  OptionSet options = command_options(kProgram, command);
  wanted.describe(options, true);
  if (const auto code = read(options, argc, argv, [&] { return wanted.problems(); })) return *code;
  auto place = open_place(wanted.state_dir, Purpose::kShow);
  if (!place) return refuse(command, place.error());
  auto report = consumer_report(*place->store, place->running.get());
  if (!report) return refuse(command, report.error());
  if (wanted.metrics) return write_out(consumer_metrics(report->summary));
  std::erase_if(report->streams, [&](const Json& stream) {
    return !wanted.shows(stream.at("stream").get<std::string>(), text_in(stream, "path"));
  });
  sort_for_people(report->streams);
  if (!wanted.json) {
    return write_out(consumer_text(report->summary) +
                     (report->streams.empty() ? "" : table_of(report->streams, wanted)));
  }
  std::string out = to_text(report->summary) + "\n";
  for (const Json& stream : report->streams) out += to_text(stream) + "\n";
  return write_out(out);
}

int losses(int argc, const char* const* argv, const Command& command) {
  StatusOptions wanted;
  OptionSet options = command_options(kProgram, command);
  wanted.describe(options, false);
  if (const auto code = read(options, argc, argv, [&] { return wanted.problems(); })) return *code;
  auto place = open_place(wanted.state_dir, Purpose::kShow);
  if (!place) return refuse(command, place.error());
  auto recorded = place->store->losses();
  if (!recorded) return refuse(command, recorded.error());
  const auto dropped = place->store->dropped_losses();
  if (!dropped) return refuse(command, dropped.error());
  std::erase_if(*recorded, [&](const auto& loss) { return !wanted.shows(to_string(loss.stream), loss.path); });
  std::string out;
  if (wanted.json) {
    for (const auto& loss : *recorded) out += to_text(loss_report(loss)) + "\n";
  } else if (!recorded->empty()) {
    std::reverse(recorded->begin(), recorded->end());  // the latest first
    Table table({{"TIME"}, {"STREAM"}, {"FROM", true}, {"TO", true}, {"BYTES", true}, {"REASON"}, {"NODE"}, {"PATH"}});
    for (const auto& loss : *recorded) {
      if (wanted.limit > 0 && static_cast<std::uint64_t>(&loss - recorded->data()) >= wanted.limit) break;
      table.add({to_iso8601(loss.time).substr(0, 19) + "Z", short_hex(loss.stream), std::to_string(loss.range.from.raw),
                 std::to_string(loss.range.to.raw), std::to_string(loss.range.bytes()), loss.reason, loss.node,
                 loss.path});
    }
    out = table.text() + wanted.rest(recorded->size());
  }
  const int code = write_out(out);
  if (*dropped > 0)
    std::fprintf(stderr, "%lld earlier losses were dropped from the record\n", static_cast<long long>(*dropped));
  return code;
}

Status put_back(Place& place, const std::vector<StreamId>& streams, FileOffset to) {
  if (!place.running) {
    const auto moved = place.store->rewind(streams, to);
    if (!moved) return tl::unexpected(moved.error());
    return {};
  }
  std::uint64_t unlisted = 0;
  for (std::size_t at = 0; at < streams.size(); at += kStreamsPerRequest) {
    Json some = Json::array();
    for (std::size_t i = at; i < std::min(streams.size(), at + kStreamsPerRequest); ++i) {
      some.push_back(to_string(streams[i]));
    }
    const auto answer = place.running->ask("rewind", to_text({{"streams", some}, {"to", to.raw}}));
    if (!answer) return tl::unexpected(answer.error());
    if (const auto value = parse_json(*answer)) unlisted += value->value("unlisted", std::uint64_t{0});
  }
  if (unlisted > 0) {
    std::fprintf(stderr, "%llu streams are not listed by their producers now; they come again when they are\n",
                 static_cast<unsigned long long>(unlisted));
  }
  return {};
}

int rewind(int argc, const char* const* argv, const Command& command) {
  std::string state_dir;
  std::uint64_t to = 0;
  bool all = false;
  std::vector<std::string> names;
  OptionSet options = command_options(kProgram, command);
  options.positional(names, "[STREAM|PATH]", "by path, id or at least 8 digits of it");
  options.flag("all", all, "every stream");
  options.number("to", to, 0, UINT64_MAX, "OFFSET",
                 "deliver again what is behind this offset of the stream; in the middle of a line, a piece of it");
  options.text("state-dir", state_dir, "DIR", "of which consumer (default: as for the program itself)");
  const auto problems = [&]() -> std::vector<std::string> {
    if (all && !names.empty()) return {"--all and a stream: choose one"};
    if (!all && names.size() != 1) return {"takes one stream, not " + std::to_string(names.size()) + ", or --all"};
    return {};
  };
  if (const auto code = read(options, argc, argv, problems)) return *code;
  auto place = open_place(state_dir, Purpose::kChange);
  if (!place) return refuse(command, place.error());
  auto report = consumer_report(*place->store, place->running.get());
  if (!report) return refuse(command, report.error());
  std::vector<NamedStream> known;
  std::vector<StreamId> behind_it;  ///< streams that have come further than `to`
  for (const Json& stream : report->streams) {
    const auto id = id_from_hex<StreamId>(stream.at("stream").get<std::string>());
    if (!id) continue;
    known.push_back({*id, text_in(stream, "path"), text_in(stream, "path")});
    const auto& outputs = stream.at("outputs");
    const bool further = std::any_of(outputs.begin(), outputs.end(),
                                     [&](const Json& output) { return output.at("cursor").get<std::uint64_t>() > to; });
    if (further) behind_it.push_back(*id);
  }
  if (!all) {
    const auto stream = find_by_name(names[0], known);
    if (!stream) return refuse(command, stream.error());
    if (std::find(behind_it.begin(), behind_it.end(), *stream) == behind_it.end()) {
      return refuse(command, {ErrorCode::kInvalid, "--to " + std::to_string(to) +
                                                       ": no output has come further in that stream; give an offset "
                                                       "before its cursor, which status shows"});
    }
    behind_it = {*stream};
  }
  if (auto ok = put_back(*place, behind_it, {to}); !ok) return refuse(command, ok.error());
  return kExitOk;
}

}  // namespace

const std::vector<Command>& commands() {
  static const std::vector<Command> all = {
      {"status", "[PATTERN...] [options]",
       "Shows which streams a consumer has and how far it is in each; it may be running or not.", &status},
      {"losses", "[PATTERN...] [options]", "Lists the ranges that no one could supply any more.", &losses},
      {"rewind", "STREAM|PATH|--all [options]",
       "Has a consumer get streams again. A mirror stays as it is; file: and stdout get the records once more, behind "
       "those they have. What the producer cannot supply any more becomes a loss.",
       &rewind},
  };
  return all;
}

}  // namespace fantail::consumer
