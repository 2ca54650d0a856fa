#include "producer/status_report.h"

#include <algorithm>

#include "common/base/table.h"
#include "common/base/text.h"
#include "common/json/json.h"
#include "common/json/report.h"

namespace fantail {
namespace {

/// What a consumer lacks; empty when it has all, or does not want it.
ByteRange lacking(const std::string& name, const CommitLedger::Consumer& consumer, const CommitLedger& ledger,
                  const wire::StreamInfo& info) {
  if (!consumer.interest.wants(info)) return {};
  const FileOffset at = std::max(ledger.position(name, info.stream).value_or(FileOffset{}), info.base);
  return {at, info.head};
}

FileOffset done_by_all(const wire::StreamInfo& info, const CommitLedger& ledger) {
  return ledger.held_for(info).value_or(info.sent);
}

std::uint64_t behind(const wire::StreamInfo& info, const CommitLedger& ledger) {
  return ByteRange{done_by_all(info, ledger), info.head}.bytes();
}

double seconds(Duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

const char* StreamState::word(const CommitLedger& ledger) const {
  if (gone) return "gone";
  if (deleted_for) return held(ledger) ? "held" : "deleted";
  if (missing) return "missing";
  return info.sealed ? "sealed" : "live";
}

bool StreamState::held(const CommitLedger& ledger) const { return deleted_for && !gone && behind(info, ledger) > 0; }

Json stream_report(const StreamState& stream, const CommitLedger& ledger) {
  const wire::StreamInfo& info = stream.info;
  Json out = {{"type", "stream"},
              {"stream", to_string(info.stream)},
              {"state", stream.word(ledger)},
              {"size", info.head.raw},
              {"base", info.base.raw},
              {"cursor", info.sent.raw},
              {"committed", nullptr},
              {"behind", behind(info, ledger)},
              {"sealed", info.sealed},
              {"open", stream.open},
              {"first_seen", to_iso8601(info.first_seen)}};
  put_text(out, "topic", info.topic);
  put_text(out, "path", info.path);
  put_text(out, "current_path", stream.current_path);
  if (const auto committed = ledger.held_for(info)) out["committed"] = committed->raw;
  if (stream.gone) out["reason"] = wire::to_string(*stream.gone);
  if (stream.deleted_for) out["deleted_s"] = seconds(*stream.deleted_for);
  Json& waiting = out["waiting"] = Json::array();
  for (const auto& [name, consumer] : ledger.consumers()) {
    const ByteRange range = lacking(name, consumer, ledger, info);
    if (range.empty()) continue;
    Json one = {{"from", range.from.raw}, {"to", range.to.raw}, {"connected", consumer.connected}};
    put_text(one, "consumer", name);
    waiting.push_back(std::move(one));
  }
  return out;
}

void StatusTotals::add(const StreamState& stream) {
  ++streams_;
  ++by_word_[stream.word(ledger_)];
  if (stream.open) ++open_files_;
  size_bytes_ += ByteRange{stream.info.base, stream.info.head}.bytes();
  unsent_bytes_ += ByteRange{stream.info.sent, stream.info.head}.bytes();
  const std::uint64_t left = behind(stream.info, ledger_);
  behind_bytes_ += left;
  const bool held = stream.held(ledger_);
  if (held) {
    ++held_files_;
    held_bytes_ += left;
  }
  for (const auto& [name, consumer] : ledger_.consumers()) {
    if (!consumer.interest.wants(stream.info)) continue;
    Share& share = by_consumer_[name];
    const std::uint64_t bytes = lacking(name, consumer, ledger_, stream.info).bytes();
    ++share.streams;
    share.behind_bytes += bytes;
    if (!held || bytes == 0) continue;
    ++share.held_files;
    share.held_bytes += bytes;
  }
}

Json StatusTotals::report(const std::map<std::string, Duration>& away) const {
  Json out = {{"type", "summary"},         {"streams", streams_},           {"by_state", by_word_},
              {"size_bytes", size_bytes_}, {"unsent_bytes", unsent_bytes_}, {"behind_bytes", behind_bytes_},
              {"held_files", held_files_}, {"held_bytes", held_bytes_},     {"open_files", open_files_}};
  Json& consumers = out["consumers"] = Json::array();
  for (const auto& [name, consumer] : ledger_.consumers()) {
    const auto found = by_consumer_.find(name);
    const Share share = found == by_consumer_.end() ? Share{} : found->second;
    const auto absent = away.find(name);
    Json one = {{"connected", consumer.connected},
                {"last_seen", to_iso8601(consumer.connected ? wall_now() : consumer.last_seen)},
                {"away_s", absent == away.end() ? 0.0 : seconds(absent->second)},
                {"topics", consumer.interest.topics},
                {"shard", std::to_string(consumer.interest.shard_index + 1) + "/" +
                              std::to_string(consumer.interest.shard_count)},
                {"streams", share.streams},
                {"behind_bytes", share.behind_bytes},
                {"held_files", share.held_files},
                {"held_bytes", share.held_bytes}};
    put_text(one, "consumer", name);
    consumers.push_back(std::move(one));
  }
  return out;
}

std::string metrics_of(const Json& summary) {
  MetricsText out;
  const bool running = summary.at("running");
  out.gauge("fantail_producer_up", "whether the producer of this state directory runs", running ? 1 : 0);
  out.head("fantail_producer_streams", "gauge", "streams that the producer knows, by state");
  for (const auto& [word, count] : summary.at("by_state").items()) {
    out.value("fantail_producer_streams", {{"state", word}}, count.get<double>());
  }
  const auto gauge = [&](const char* name, const char* member, const char* help) {
    out.gauge(name, help, summary.at(member).get<double>());
  };
  gauge("fantail_producer_size_bytes", "size_bytes", "bytes of all streams");
  gauge("fantail_producer_unsent_bytes", "unsent_bytes", "bytes not broadcast yet");
  gauge("fantail_producer_behind_bytes", "behind_bytes", "bytes that some durable consumer has not committed");
  gauge("fantail_producer_held_files", "held_files", "deleted files kept open for durable consumers");
  gauge("fantail_producer_held_bytes", "held_bytes", "bytes of them that are not committed");
  if (running) {
    gauge("fantail_producer_open_files", "open_files", "files held open");
    gauge("fantail_producer_open_files_limit", "open_files_limit", "files that may be open at a time");
    for (const auto& [name, value] : summary.at("counters").items()) {
      out.head("fantail_producer_" + name + "_total", "counter", "since the producer was started");
      out.value("fantail_producer_" + name + "_total", {}, value.get<double>());
    }
  }
  const auto each = [&](const char* name, const char* help, const auto& value_of) {
    out.head(name, "gauge", help);
    for (const Json& consumer : summary.at("consumers")) {
      out.value(name, {{"consumer", text_in(consumer, "consumer")}}, value_of(consumer));
    }
  };
  each("fantail_producer_consumer_connected", "whether the durable consumer is connected",
       [](const Json& c) { return c.at("connected").get<bool>() ? 1.0 : 0.0; });
  each("fantail_producer_consumer_behind_bytes", "bytes that it has not committed",
       [](const Json& c) { return c.at("behind_bytes").get<double>(); });
  each("fantail_producer_consumer_held_bytes", "bytes of deleted files that are held for it",
       [](const Json& c) { return c.at("held_bytes").get<double>(); });
  each("fantail_producer_consumer_away_seconds", "for how long it is away, counted while the producer runs",
       [](const Json& c) { return c.at("away_s").get<double>(); });
  return out.text();
}

std::string text_of(const Json& summary) {
  const auto bytes = [](const Json& value) { return human_bytes(value.get<double>()); };
  std::string out =
      "producer " + summary.value("name", "") + " (node " + summary.at("node").get<std::string>() + "), " +
      (summary.at("running").get<bool>() ? "running as process " + std::to_string(summary.at("pid").get<long>())
                                         : std::string("not running")) +
      "\n" + std::to_string(summary.at("streams").get<std::size_t>()) + " streams, " + bytes(summary.at("size_bytes")) +
      " in all, " + bytes(summary.at("unsent_bytes")) + " not sent, " + bytes(summary.at("behind_bytes")) +
      " not committed by all\n" + std::to_string(summary.at("held_files").get<std::size_t>()) +
      " deleted files held, " + bytes(summary.at("held_bytes")) + " of them not committed\n";
  Table consumers({{"CONSUMER"},
                   {"STATE"},
                   {"LAST SEEN"},
                   {"STREAMS", true},
                   {"BEHIND", true},
                   {"HELD", true},
                   {"HELD FILES", true}});
  for (const Json& c : summary.at("consumers")) {
    consumers.add({text_in(c, "consumer"), c.at("connected").get<bool>() ? "connected" : "away",
                   c.at("last_seen").get<std::string>().substr(0, 19) + "Z",
                   std::to_string(c.at("streams").get<std::size_t>()), bytes(c.at("behind_bytes")),
                   bytes(c.at("held_bytes")), std::to_string(c.at("held_files").get<std::size_t>())});
  }
  return out + (consumers.empty() ? "no durable consumer is known\n" : "\n" + consumers.text());
}

}  // namespace fantail
