#include "producer/commands.h"

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
#include "common/rpc/admin.h"
#include "common/stream/stream_name.h"
#include "producer/registry.h"
#include "producer/status_report.h"
#include "producer/tailer.h"

namespace fantail::producer {
namespace {

constexpr const char* kProgram = "fantail-producer";

int refuse(const Command& command, const Error& error) { return refuse_command(kProgram, command, error); }

/// An exit code: there is nothing more to do.
std::optional<int> read(OptionSet& options, int argc, const char* const* argv,
                        const std::function<std::vector<std::string>()>& problems) {
  log::set_up(log::Level::kWarn);
  return read_command_options(options, argc, argv, problems);
}

std::filesystem::path directory_of(const std::string& state_dir) {
  return state_dir.empty() ? default_state_directory("producer") : std::filesystem::path(state_dir);
}

/// Everything there is to show.
struct Report {
  Json summary;
  std::vector<Json> streams;
};

Result<Report> ask_running(rpc::AdminClient& running) {
  Report report;
  const auto ask = [&](const char* method, const Json& arguments) -> Result<Json> {
    const auto answer = running.ask(method, to_text(arguments));
    if (!answer) return tl::unexpected(answer.error());
    return parse_json(*answer);
  };
  auto summary = ask("summary", Json::object());
  if (!summary) return tl::unexpected(summary.error());
  report.summary = std::move(*summary);
  std::uint64_t after = 0;
  for (;;) {
    auto page = ask("streams", {{"after", after}});
    if (!page) return tl::unexpected(page.error());
    for (Json& stream : page->at("streams")) report.streams.push_back(std::move(stream));
    if (!page->contains("next")) return report;
    after = page->at("next").get<std::uint64_t>();
  }
}

Result<Report> read_stopped(Registry& registry) {
  CommitLedger ledger;
  if (auto ok = registry.load_consumers(ledger); !ok) return tl::unexpected(ok.error());
  auto away = registry.load_absences();
  if (!away) return tl::unexpected(away.error());
  auto records = registry.load_streams();
  if (!records) return tl::unexpected(records.error());
  Report report;
  StatusTotals totals(ledger);
  for (StreamRecord& record : *records) {
    StreamState state;
    state.current_path = record.current_path;
    state.gone = record.gone;
    const auto there = key_of(record.current_path);
    state.missing = !record.gone && !(there && *there == record.key);
    state.info = std::move(record.info);
    totals.add(state);
    report.streams.push_back(stream_report(state, ledger));
  }
  report.summary = totals.report(*away);
  report.summary["running"] = false;
  report.summary["node"] = to_string(registry.node());
  return report;
}

Result<Report> report_of(const std::filesystem::path& directory) {
  auto running = rpc::AdminClient::find(directory);
  if (!running && running.error().code != ErrorCode::kNotFound) return tl::unexpected(running.error());
  if (running && *running) return ask_running(**running);
  auto registry = Registry::open_existing(directory);
  if (!registry) return tl::unexpected(registry.error());
  return read_stopped(*registry);
}

/// Held ones first, then those that are furthest behind.
void sort_for_people(std::vector<Json>& streams) {
  const auto rank = [](const Json& s) {
    const auto& word = s.at("state").get_ref<const std::string&>();
    return word == "held" ? 0 : word == "gone" || word == "missing" ? 1 : 2;
  };
  std::stable_sort(streams.begin(), streams.end(), [&](const Json& a, const Json& b) {
    if (rank(a) != rank(b)) return rank(a) < rank(b);
    return a.at("behind").get<std::uint64_t>() > b.at("behind").get<std::uint64_t>();
  });
}

std::string table_of(const std::vector<Json>& streams, const StatusOptions& options) {
  Table table({{"STREAM"}, {"STATE"}, {"SIZE", true}, {"SENT", true}, {"BEHIND", true}, {"WAITED FOR BY"}, {"PATH"}});
  const auto bytes = [](const Json& value) { return human_bytes(value.get<double>()); };
  for (const Json& stream : streams) {
    if (options.limit > 0 && static_cast<std::uint64_t>(&stream - streams.data()) >= options.limit) break;
    std::string waiting;
    for (const Json& one : stream.at("waiting")) {
      waiting +=
          (waiting.empty() ? "" : ",") + text_in(one, "consumer") + (one.at("connected").get<bool>() ? "" : "(away)");
    }
    table.add({stream.at("stream").get<std::string>().substr(0, 8), stream.at("state").get<std::string>(),
               bytes(stream.at("size")), bytes(stream.at("cursor")), bytes(stream.at("behind")),
               waiting.empty() ? "-" : waiting, text_in(stream, "current_path")});
  }
  return "\n" + table.text() + options.rest(streams.size());
}

int status(int argc, const char* const* argv, const Command& command) {
  StatusOptions wanted;
  OptionSet options = command_options(kProgram, command);
  wanted.describe(options, true);
  if (const auto code = read(options, argc, argv, [&] { return wanted.problems(); })) return *code;
  auto report = report_of(directory_of(wanted.state_dir));
  if (!report) return refuse(command, report.error());
  if (wanted.metrics) return write_out(metrics_of(report->summary));
  std::erase_if(report->streams, [&](const Json& stream) {
    return !wanted.shows(stream.at("stream").get<std::string>(), text_in(stream, "path"),
                         text_in(stream, "current_path"));
  });
  if (wanted.json) {
    std::string out = to_text(report->summary) + "\n";
    for (const Json& stream : report->streams) out += to_text(stream) + "\n";
    return write_out(out);
  }
  sort_for_people(report->streams);
  return write_out(text_of(report->summary) + (report->streams.empty() ? "" : table_of(report->streams, wanted)));
}

/// What a command changes: through the program that runs, or in the registry of one that does not, which is locked
/// meanwhile.
struct Place {
  std::unique_ptr<rpc::AdminClient> running;
  std::optional<StateDirectory> locked;
  std::optional<Registry> registry;
};

Result<Place> open_place(const std::filesystem::path& directory) {
  Place place;
  auto running = rpc::AdminClient::find(directory);
  if (!running && running.error().code != ErrorCode::kNotFound) return tl::unexpected(running.error());
  if (running && *running) {
    place.running = std::move(*running);
    return place;
  }
  if (auto there = Registry::open_existing(directory); !there) return tl::unexpected(there.error());
  auto locked = StateDirectory::open(directory);
  if (!locked) return tl::unexpected(locked.error());
  place.locked = std::move(*locked);
  auto registry = Registry::open_existing(directory);
  if (!registry) return tl::unexpected(registry.error());
  place.registry = std::move(*registry);
  return place;
}

Result<std::vector<NamedStream>> names_of(Place& place) {
  auto report = place.running ? ask_running(*place.running) : read_stopped(*place.registry);
  if (!report) return tl::unexpected(report.error());
  std::vector<NamedStream> out;
  for (const Json& stream : report->streams) {
    const auto id = id_from_hex<StreamId>(stream.at("stream").get<std::string>());
    if (id) out.push_back({*id, text_in(stream, "path"), text_in(stream, "current_path")});
  }
  return out;
}

Result<StreamId> find_stream(Place& place, const std::string& name) {
  const auto names = names_of(place);
  if (!names) return tl::unexpected(names.error());
  return find_by_name(name, *names);
}

Status tell(rpc::AdminClient& running, const char* method, const Json& arguments) {
  const auto answer = running.ask(method, to_text(arguments));
  if (!answer) return tl::unexpected(answer.error());
  return {};
}

Status forget_consumer(Place& place, const std::string& name) {
  if (place.running) {
    Json arguments = Json::object();
    put_text(arguments, "consumer", name);
    return tell(*place.running, "forget_consumer", arguments);
  }
  CommitLedger ledger;
  if (auto ok = place.registry->load_consumers(ledger); !ok) return ok;
  if (!ledger.consumers().contains(name)) {
    return fail(ErrorCode::kNotFound, "there is no durable consumer '" + printable(name) + "'; status lists them");
  }
  return place.registry->forget_consumer(name);
}

Status rewind_stopped(Registry& registry, StreamId id, FileOffset to) {
  auto records = registry.load_streams();
  if (!records) return tl::unexpected(records.error());
  for (StreamRecord& record : *records) {
    if (record.info.stream != id) continue;
    ArchiveBudget archives;
    TailedFile file(record.current_path, record.key, record.fingerprint);
    if (record.archive) file.read_archive(archives, record.archive);
    if (auto ok = rewind_file(file, record.gone, record.info, to); !ok) return ok;
    record.fingerprint = file.fingerprint();
    return registry.save({record}, {});
  }
  return fail(ErrorCode::kNotFound, "there is no stream " + to_string(id));
}

int forget(int argc, const char* const* argv, const Command& command) {
  std::string state_dir;
  std::vector<std::string> consumers;
  std::vector<std::string> names;
  OptionSet options = command_options(kProgram, command);
  options.positional(
      names, "[STREAM|PATH...]",
      "streams by path, id or at least 8 digits of it; a file that is there is sent again as a new stream");
  options.list("consumer", consumers, "NAME",
               "a durable consumer that is gone for good: nothing is held for it any more");
  options.text("state-dir", state_dir, "DIR", "of which producer (default: as for the program itself)");
  const auto problems = [&]() -> std::vector<std::string> {
    if (names.empty() && consumers.empty()) return {"forget what? Name a stream, or a consumer with --consumer NAME"};
    return {};
  };
  if (const auto code = read(options, argc, argv, problems)) return *code;
  auto place = open_place(directory_of(state_dir));
  if (!place) return refuse(command, place.error());
  std::vector<StreamId> streams;
  for (const std::string& name : names) {
    const auto stream = find_stream(*place, name);
    if (!stream) return refuse(command, stream.error());
    streams.push_back(*stream);
  }
  for (const std::string& name : consumers) {
    if (auto ok = forget_consumer(*place, name); !ok) return refuse(command, ok.error());
  }
  for (const StreamId stream : streams) {
    const auto ok = place->running ? tell(*place->running, "forget", {{"stream", to_string(stream)}})
                                   : place->registry->remove_streams({stream});
    if (!ok) return refuse(command, ok.error());
  }
  return kExitOk;
}

int rewind(int argc, const char* const* argv, const Command& command) {
  std::string state_dir;
  std::uint64_t to = 0;
  std::vector<std::string> names;
  OptionSet options = command_options(kProgram, command);
  options.positional(names, "STREAM|PATH", "by path, id or at least 8 digits of it");
  options.number("to", to, 0, UINT64_MAX, "OFFSET", "broadcast again what is behind this offset of the stream");
  options.text("state-dir", state_dir, "DIR", "of which producer (default: as for the program itself)");
  const auto problems = [&]() -> std::vector<std::string> {
    if (names.size() != 1) return {"takes one stream, not " + std::to_string(names.size()) + "; see --help"};
    return {};
  };
  if (const auto code = read(options, argc, argv, problems)) return *code;
  auto place = open_place(directory_of(state_dir));
  if (!place) return refuse(command, place.error());
  const auto stream = find_stream(*place, names[0]);
  if (!stream) return refuse(command, stream.error());
  const auto ok = place->running ? tell(*place->running, "rewind", {{"stream", to_string(*stream)}, {"to", to}})
                                 : rewind_stopped(*place->registry, *stream, {to});
  return ok ? static_cast<int>(kExitOk) : refuse(command, ok.error());
}

}  // namespace

const std::vector<Command>& commands() {
  static const std::vector<Command> all = {
      {"status", "[PATTERN...] [options]",
       "Shows which streams a producer has, how far they are, what is held and for whom; it may be running or not.",
       &status},
      {"forget", "[STREAM|PATH...] [options]",
       "Has a producer forget streams, or durable consumers that are gone for good.", &forget},
      {"rewind", "STREAM|PATH [options]",
       "Has a producer broadcast a stream again. Consumers drop what they have: for one that is to get it again, use "
       "fantail-consumer rewind.",
       &rewind},
  };
  return all;
}

}  // namespace fantail::producer
