// The part of Producer that answers commands: fantail-producer status, forget and rewind.
#include <unistd.h>

#include "common/base/version.h"
#include "common/json/json.h"
#include "common/json/report.h"
#include "producer/producer.h"
#include "producer/status_report.h"

namespace fantail {
namespace {

constexpr std::size_t kStreamsPerPage = 500;

Result<StreamId> stream_in(const Json& arguments) {
  const auto id = id_from_hex<StreamId>(arguments.value("stream", ""));
  if (!id) return fail(ErrorCode::kInvalid, "the id of a stream is missing");
  return *id;
}

}  // namespace

/// Without it the program does its work all the same; only commands cannot reach it.
void Producer::open_admin() {
  auto admin =
      rpc::AdminServer::open(state_.path(), [this](const rpc::Caller& caller, const std::string& method,
                                                   std::string_view arguments) { answer(caller, method, arguments); });
  if (admin) {
    admin_ = std::move(*admin);
  } else {
    log::warn("commands cannot reach this program", {{"error", admin.error()}});
  }
}

void Producer::answer(const rpc::Caller& caller, const std::string& method, std::string_view arguments) {
  admin_->answer(caller, administer(method, arguments));
}

Result<std::string> Producer::administer(const std::string& method, std::string_view text) {
  const auto arguments = parse_json(text);
  if (!arguments || !arguments->is_object()) return fail(ErrorCode::kInvalid, "arguments must be an object of JSON");
  const auto done = [](const Status& status) -> Result<std::string> {
    if (!status) return tl::unexpected(status.error());
    return std::string("{}");
  };
  try {
    if (method == "summary") return summary();
    if (method == "streams") {
      Json out = {{"streams", Json::array()}};
      const auto page = tailer_->states(arguments->value("after", std::uint64_t{0}), kStreamsPerPage);
      for (const StreamState& stream : page) out["streams"].push_back(stream_report(stream, ledger_));
      if (page.size() == kStreamsPerPage) out["next"] = page.back().info.sequence;
      return to_text(out);
    }
    if (method == "forget_consumer") return done(tailer_->forget_consumer(text_in(*arguments, "consumer")));
    if (method == "forget" || method == "rewind") {
      const auto stream = stream_in(*arguments);
      if (!stream) return tl::unexpected(stream.error());
      if (method == "forget") return done(tailer_->forget(*stream));
      return done(tailer_->rewind(*stream, {arguments->value("to", std::uint64_t{0})}));
    }
  } catch (const Json::exception&) {
    return fail(ErrorCode::kInvalid, "arguments have other types than they must");
  }
  return fail(ErrorCode::kUnsupported, "there is no method '" + method + "'; this program may be of an older version");
}

std::string Producer::summary() const {
  StatusTotals totals(ledger_);
  tailer_->each_state([&](const StreamState& stream) { totals.add(stream); });
  Json out = totals.report(tailer_->absences());
  const auto& sent = streams_->broadcast_counters();
  const auto& fetched = streams_->fetch_counters();
  const auto& tailed = tailer_->counters();
  out["running"] = true;
  out["pid"] = ::getpid();
  out["version"] = kVersion;
  out["node"] = to_string(registry_.node());
  out["hold_time_s"] = std::chrono::duration<double>(config_.hold_time).count();
  out["hold_bytes_limit"] = config_.hold_bytes;
  out["open_files_limit"] = tailer_->open_files_limit();
  out["consumers_connected"] = streams_->consumers();
  out["counters"] = {{"sent_bytes", sent.raw_bytes_sent},
                     {"sent_wire_bytes", sent.wire_bytes_sent},
                     {"sent_chunks", sent.chunks_sent},
                     {"skipped_chunks", sent.chunks_skipped_a_receiver},
                     {"read_errors", sent.read_errors},
                     {"fetched_bytes", fetched.bytes_served},
                     {"streams_created", tailed.streams_created},
                     {"streams_sealed", tailed.streams_sealed},
                     {"lost_bytes", tailed.given_up_bytes},
                     {"walks", tailed.walks},
                     {"rejected_messages", control_->counters().rejected}};
  put_text(out, "name", name_);
  return to_text(out);
}

}  // namespace fantail
