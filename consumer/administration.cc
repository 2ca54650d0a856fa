// The part of Consumer that answers commands: fantail-consumer status and rewind.
#include <unistd.h>

#include <algorithm>

#include "common/base/version.h"
#include "common/json/json.h"
#include "common/json/report.h"
#include "consumer/consumer.h"
#include "consumer/entry.h"

namespace fantail {
namespace {

constexpr std::size_t kStreamsPerPage = 500;
constexpr std::size_t kMaxRewinds = 16;

}  // namespace

/// Without it the program does its work all the same; only commands cannot reach it.
void Consumer::open_admin() {
  if (!state_) return;
  auto admin = rpc::AdminServer::open(
      state_->path(), [this](const rpc::Caller& caller, const std::string& method, std::string_view arguments) {
        administer(caller, method, arguments);
      });
  if (admin) {
    admin_ = std::move(*admin);
  } else {
    log::warn("commands cannot reach this program", {{"error", admin.error()}});
  }
}

void Consumer::administer(const rpc::Caller& caller, const std::string& method, std::string_view text) {
  const auto refuse = [&](ErrorCode code, std::string why) { admin_->answer(caller, fail(code, std::move(why))); };
  const auto arguments = parse_json(text);
  if (!arguments || !arguments->is_object()) {
    return refuse(ErrorCode::kInvalid, "arguments must be an object of JSON");
  }
  try {
    if (method == "summary") return admin_->answer(caller, summary());
    if (method == "streams") return admin_->answer(caller, streams_page(arguments->value("after", "")));
    if (method == "rewind") {
      if (rewinds_.size() >= kMaxRewinds) return refuse(ErrorCode::kBusy, "others rewind just now; try again");
      Rewind rewind{caller, {}, {arguments->value("to", std::uint64_t{0})}};
      for (const Json& each : arguments->at("streams")) {
        const auto id = id_from_hex<StreamId>(each.get<std::string>());
        if (!id) return refuse(ErrorCode::kInvalid, "the id of a stream is not readable");
        rewind.streams.push_back(*id);
      }
      rewinds_.push_back(std::move(rewind));
      return rewind_what_waits();
    }
  } catch (const Json::exception&) {
    return refuse(ErrorCode::kInvalid, "arguments have other types than they must");
  }
  refuse(ErrorCode::kUnsupported, "there is no method '" + method + "'; this program may be of an older version");
}

std::string Consumer::summary() const {
  const auto& c = streams_->counters();
  const auto overview = streams_->overview();
  Json out = {{"pid", ::getpid()},
              {"version", kVersion},
              {"nodes_connected", overview.nodes},
              {"blocked_streams", waiting_.size()},
              {"counters",
               {{"received_chunks", c.chunks_received},
                {"delivered_bytes", c.bytes_delivered},
                {"fetched_bytes", c.bytes_fetched},
                {"fetches", c.fetches},
                {"duplicate_bytes", c.duplicate_bytes},
                {"no_room_chunks", c.dropped_no_room},
                {"lost_bytes", c.lost_bytes},
                {"rejected_messages", c.rejected + inlet_->malformed() + control_->counters().rejected}}}};
  return to_text(out);
}

std::string Consumer::streams_page(const std::string& after) const {
  const StreamId from = id_from_hex<StreamId>(after).value_or(StreamId{});
  std::vector<StreamId> page;
  for (const auto& [id, entry] : entries_) {
    if (id > from) page.push_back(id);
  }
  const auto end = page.begin() + static_cast<std::ptrdiff_t>(std::min(kStreamsPerPage, page.size()));
  std::partial_sort(page.begin(), end, page.end());
  page.erase(end, page.end());
  Json out = {{"streams", Json::array()}};
  for (const StreamId id : page) {
    const Entry& entry = *entries_.at(id);
    Json stream = {{"stream", to_string(id)}, {"node", to_string(entry.meta.node)}, {"outputs", Json::array()}};
    put_text(stream, "node_name", entry.meta.node_name);
    put_text(stream, "topic", entry.meta.topic);
    put_text(stream, "path", entry.meta.path);
    for (std::size_t i = 0; i < sinks_.size(); ++i) {
      Json output = {{"cursor", entry.taken[i].raw}, {"committed", std::min(entry.durable[i], entry.taken[i]).raw}};
      put_text(output, "output", sinks_[i]->key());
      stream["outputs"].push_back(std::move(output));
    }
    if (const auto view = streams_->view(id)) {
      stream["head"] = view->head.raw;
      stream["sealed"] = view->sealed;
      stream["connected"] = view->connected;
    }
    out["streams"].push_back(std::move(stream));
  }
  if (page.size() == kStreamsPerPage) out["next"] = to_string(page.back());
  return to_text(out);
}

/// Not while a checkpoint is under way: it would store the cursors of before behind those that were put back.
void Consumer::rewind_what_waits() {
  if (worker_.busy() || storing_) return;
  for (const Rewind& each : std::exchange(rewinds_, {})) {
    std::size_t unlisted = 0;
    if (auto ok = rewind(each.streams, each.to, unlisted); !ok) {
      admin_->answer(each.caller, tl::unexpected(ok.error()));
    } else {
      admin_->answer(each.caller, to_text({{"unlisted", unlisted}}));
    }
  }
}

/// First in the store: what happens then is the same as after a restart.
Status Consumer::rewind(const std::vector<StreamId>& streams, FileOffset to, std::size_t& unlisted) {
  if (auto moved = store_->rewind(streams, to); !moved) return tl::unexpected(moved.error());
  for (const StreamId id : streams) {
    const auto found = entries_.find(id);
    if (found == entries_.end()) {
      ++unlisted;
      continue;
    }
    Entry& entry = *found->second;
    const FileOffset at = std::max(to, entry.base);
    for (std::size_t i = 0; i < sinks_.size(); ++i) {
      if (entry.taken[i] <= at) continue;
      entry.opening[i] = at;
      entry.durable[i] = std::min(entry.durable[i], at);
      if (entry.start[i]) entry.start[i] = std::min(*entry.start[i], at);
    }
    // Those come again with the bytes around them.
    entry.losses.clear();
    entry.sealing.reset();
    log::info("stream rewound because it was asked for", {{"stream", id}, {"path", entry.meta.path}, {"to", at}});
    if (auto ok = catch_up(entry); !ok) blocked_by(ok.error());
  }
  return {};
}

}  // namespace fantail
