#include "consumer/status_report.h"

#include <algorithm>
#include <unordered_map>

#include "common/base/text.h"
#include "common/json/json.h"
#include "common/json/report.h"

namespace fantail {
namespace {

struct Losses {
  std::uint64_t count = 0;
  std::uint64_t bytes = 0;
};

Result<Json> ask(rpc::AdminClient& running, const char* method, const Json& arguments) {
  const auto answer = running.ask(method, to_text(arguments));
  if (!answer) return tl::unexpected(answer.error());
  return parse_json(*answer);
}

/// Into `out`, by id.
Status ask_streams(rpc::AdminClient& running, std::unordered_map<std::string, Json>& out) {
  Json after = "";
  for (;;) {
    auto page = ask(running, "streams", {{"after", after}});
    if (!page) return tl::unexpected(page.error());
    for (Json& stream : page->at("streams")) {
      std::string id = stream.at("stream").get<std::string>();
      out.emplace(std::move(id), std::move(stream));
    }
    if (!page->contains("next")) return {};
    after = page->at("next");
  }
}

/// As the store has it.
Json stored(const CursorStore::StreamRow& row, const CursorStore& store) {
  Json out = {{"stream", to_string(row.info.stream)},
              {"node", to_string(row.node)},
              {"sealed", row.info.sealed},
              {"connected", false},
              {"outputs", Json::array()}};
  put_text(out, "node_name", row.node_name);
  put_text(out, "topic", row.info.topic);
  put_text(out, "path", row.info.path);
  if (row.info.sealed) out["head"] = row.info.head.raw;
  for (const auto& [sink, offset] : store.cursors(row.info.stream)) {
    Json output = {{"cursor", offset.raw}, {"committed", offset.raw}};
    put_text(output, "output", sink);
    out["outputs"].push_back(std::move(output));
  }
  return out;
}

/// What follows from its outputs.
void complete(Json& stream, const Losses& losses) {
  const auto least = [&](const char* member) {
    std::uint64_t value = UINT64_MAX;
    for (const Json& output : stream.at("outputs")) value = std::min(value, output.at(member).get<std::uint64_t>());
    return value == UINT64_MAX ? 0 : value;
  };
  stream["type"] = "stream";
  stream["cursor"] = least("cursor");
  stream["committed"] = least("committed");
  if (!stream.contains("head")) {
    stream["head"] = stream["behind"] = nullptr;
  } else {
    const auto head = stream["head"].get<std::uint64_t>();
    stream["behind"] = head - std::min(head, stream["cursor"].get<std::uint64_t>());
  }
  stream["losses"] = losses.count;
  stream["lost_bytes"] = losses.bytes;
}

}  // namespace

Result<ConsumerReport> consumer_report(CursorStore& store, rpc::AdminClient* running) {
  ConsumerReport report;
  report.summary = Json::object();
  std::unordered_map<std::string, Json> live;
  if (running != nullptr) {
    auto summary = ask(*running, "summary", Json::object());
    if (!summary) return tl::unexpected(summary.error());
    report.summary = std::move(*summary);
    if (auto ok = ask_streams(*running, live); !ok) return tl::unexpected(ok.error());
  }
  const auto lost = store.losses();
  if (!lost) return tl::unexpected(lost.error());
  const auto dropped = store.dropped_losses();
  if (!dropped) return tl::unexpected(dropped.error());
  std::unordered_map<std::string, Losses> losses;
  Losses all_losses;
  for (const auto& loss : *lost) {
    for (Losses* of : {&losses[to_string(loss.stream)], &all_losses}) {
      ++of->count;
      of->bytes += loss.range.bytes();
    }
  }
  auto rows = store.streams();
  if (!rows) return tl::unexpected(rows.error());
  for (const auto& row : *rows) {
    const std::string id = to_string(row.info.stream);
    if (!live.contains(id)) live.emplace(id, stored(row, store));
  }
  std::uint64_t behind = 0;
  std::size_t sealed = 0;
  for (auto& [id, stream] : live) {
    complete(stream, losses[id]);
    if (!stream["behind"].is_null()) behind += stream["behind"].get<std::uint64_t>();
    if (stream["sealed"].get<bool>()) ++sealed;
    report.streams.push_back(std::move(stream));
  }
  Json& summary = report.summary;
  summary["type"] = "summary";
  summary["running"] = running != nullptr;
  summary["consumer"] = to_string(store.id());
  summary["streams"] = report.streams.size();
  summary["sealed_streams"] = sealed;
  summary["behind_bytes"] = behind;
  summary["losses"] = all_losses.count;
  summary["lost_bytes"] = all_losses.bytes;
  summary["dropped_losses"] = *dropped;
  return report;
}

Json loss_report(const CursorStore::LossRow& loss) {
  Json out = {{"type", "loss"},
              {"stream", to_string(loss.stream)},
              {"from", loss.range.from.raw},
              {"to", loss.range.to.raw},
              {"reason", loss.reason},
              {"time", to_iso8601(loss.time)}};
  put_text(out, "node", loss.node);
  put_text(out, "topic", loss.topic);
  put_text(out, "path", loss.path);
  return out;
}

std::string consumer_metrics(const Json& summary) {
  MetricsText out;
  const bool running = summary.at("running");
  out.gauge("fantail_consumer_up", "whether the consumer of this state directory runs", running ? 1 : 0);
  const auto gauge = [&](const char* name, const char* member, const char* help) {
    out.gauge(name, help, summary.at(member).get<double>());
  };
  gauge("fantail_consumer_streams", "streams", "streams that the consumer knows");
  gauge("fantail_consumer_behind_bytes", "behind_bytes", "bytes known to exist and not delivered yet");
  gauge("fantail_consumer_recorded_losses", "losses", "losses on record");
  gauge("fantail_consumer_recorded_lost_bytes", "lost_bytes", "bytes of the losses on record");
  if (!running) return out.text();
  gauge("fantail_consumer_nodes_connected", "nodes_connected", "producers that are connected");
  gauge("fantail_consumer_blocked_streams", "blocked_streams", "streams that an output does not take now");
  for (const auto& [name, value] : summary.at("counters").items()) {
    out.head("fantail_consumer_" + name + "_total", "counter", "since the consumer was started");
    out.value("fantail_consumer_" + name + "_total", {}, value.get<double>());
  }
  return out.text();
}

std::string consumer_text(const Json& summary) {
  const auto bytes = [&](const char* member) { return human_bytes(summary.at(member).get<double>()); };
  const auto number = [&](const char* member) { return std::to_string(summary.at(member).get<std::int64_t>()); };
  const bool running = summary.at("running");
  std::string out =
      "consumer " + summary.at("consumer").get<std::string>() + ", " +
      (running ? "running as process " + number("pid") + ", " + number("nodes_connected") + " producers connected"
               : std::string("not running")) +
      "\n" + number("streams") + " streams, " + number("sealed_streams") + " of them complete, " +
      bytes("behind_bytes") + " behind\n" + number("losses") + " losses on record, " + bytes("lost_bytes") +
      " in all\n";
  if (summary.at("dropped_losses").get<std::int64_t>() > 0) {
    out += number("dropped_losses") + " earlier losses were dropped from the record\n";
  }
  return out;
}

}  // namespace fantail
