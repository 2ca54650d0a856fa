#include "consumer/config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <set>

#include "common/wire/codec.h"

namespace fantail {
namespace {

struct Shard {
  std::uint16_t index = 0;
  std::uint16_t count = 1;
};

std::optional<Shard> to_shard(const std::string& text) {
  if (text.empty()) return Shard{};
  const auto slash = text.find('/');
  if (slash == std::string::npos) return std::nullopt;
  unsigned index = 0;
  unsigned count = 0;
  const char* middle = text.data() + slash;
  const char* end = text.data() + text.size();
  const auto i = std::from_chars(text.data(), middle, index);
  const auto n = std::from_chars(middle + 1, end, count);
  if (i.ec != std::errc{} || i.ptr != middle || n.ec != std::errc{} || n.ptr != end) return std::nullopt;
  if (index < 1 || index > count || count > 1024) return std::nullopt;
  return Shard{static_cast<std::uint16_t>(index - 1), static_cast<std::uint16_t>(count)};
}

constexpr std::uint64_t kLeastRotateBytes = 4096;

/// "0.5", the way it was given.
std::string seconds_text(Duration duration) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.begin(), text.end(), std::chrono::duration<double>(duration).count()).ptr;
  return {text.begin(), end};
}

Result<ConsumerConfig::Output> to_output(const std::string& text) {
  using Kind = ConsumerConfig::Output::Kind;
  if (text == "stdout" || text == "stdout:") return ConsumerConfig::Output{Kind::kStdout, {}};
  const auto colon = text.find(':');
  const std::string kind = text.substr(0, colon);
  const std::string target = colon == std::string::npos ? "" : text.substr(colon + 1);
  if ((kind == "mirror" || kind == "file") && target.empty()) {
    return fail(ErrorCode::kInvalid, "--output '" + text + "': names nothing; use " + kind +
                                         (kind == "mirror" ? ":DIR, a directory" : ":PATH, a file"));
  }
  if (kind != "mirror" && kind != "file") {
    return fail(ErrorCode::kInvalid, "--output '" + text + "': must be stdout, mirror:DIR or file:PATH");
  }
  if (kind == "mirror") return ConsumerConfig::Output{Kind::kMirror, target};
  const auto path = PathTemplate::parse(target);
  if (!path) return tl::unexpected(path.error());
  std::error_code ec;
  if (target.ends_with('/') || std::filesystem::is_directory(target, ec)) {
    return fail(ErrorCode::kInvalid, "--output '" + text + "': is a directory; name a file in it, e.g. file:" + target +
                                         (target.ends_with('/') ? "" : "/") + "all.log, or use mirror:" + target);
  }
  return ConsumerConfig::Output{Kind::kFile, target};
}

/// The same for outputs that are the same, however they are written.
std::string place_of(const ConsumerConfig::Output& output) {
  if (output.kind == ConsumerConfig::Output::Kind::kStdout) return "stdout";
  std::string path = std::filesystem::absolute(output.target).lexically_normal().string();
  if (path.ends_with('/')) path.pop_back();
  return (output.kind == ConsumerConfig::Output::Kind::kMirror ? "mirror:" : "file:") + path;
}

}  // namespace

void ConsumerConfig::describe(OptionSet& options) {
  options.group("Output");
  options.list(
      "output", outputs, "KIND:TARGET",
      "stdout (default), mirror:DIR, or file:PATH with {node} {topic} {path} {basename} {date}; compressed when "
      "PATH ends in .zst");
  options.text("format", format, "raw|jsonl|TEMPLATE",
               "of records: a template has {node} {topic} {path} {offset} {time} {line} ...");
  options.bytes("rotate-bytes", rotate_bytes, 0, "file: begin another file when this one is so long; 0: never");
  options.seconds("rotate-every", rotate_every, "file: begin another file so long after its first byte; 0: never");
  options.list("topic", topics, "T", "take this topic and everything under it (default all)");
  options.choice("from", from, {"beginning", "now"}, "where to begin in streams that were never seen before");
  options.text("shard", shard, "I/N", "take the I-th of N shares of the streams");
  options.seconds("sync", sync, "make outputs durable and commit this often", 10ms);
  options.seconds("flush-partial", flush_partial, "stdout: show an unfinished last line after so long");
  options.flag("once", once, "exit when everything known is delivered");
  options.seconds("idle-exit", idle_exit, "exit when nothing is outstanding and nothing came for so long; 0: never");
  lines.describe(options);
  options.group("Transport");
  options.choice("transport", transport, {"tcp", "epgm"}, "how broadcasts travel");
  options.list("endpoint", endpoints, "ADDR",
               "tcp or ipc: listen here (default tcp://127.0.0.1:5550, unless --connect is given)", false);
  options.list("connect", connect, "ADDR", "tcp or ipc: a producer that was started with --bind");
  multicast.describe(options, "tcp: the port of the default endpoint");
  options.text("control", control, "ADDR", "where to listen for control links (default: data port + 1)");
  options.group("Repair and state");
  options.milliseconds("repair-after", repair_after,
                       "fetch what a head shows and the broadcast has not brought for so long");
  options.bytes("max-pending", max_pending_bytes, 1024 * 1024, "memory for data that waits for something earlier");
  options.text("name", name, "NAME", "durable name; producers hold files until it has committed them");
  options.text("state-dir", state_dir, "DIR",
               "where cursors are kept (default: $STATE_DIRECTORY, /var/lib/fantail or XDG)");
  options.log_level(log_level);
}

std::vector<std::string> ConsumerConfig::problems() const {
  std::vector<std::string> out;
  const auto need = [&](const auto& result) {
    if (!result) out.push_back(result.error().context);
  };
  for (const auto& text : outputs) need(to_output(text));
  std::set<std::string> places;
  for (const auto& text : outputs) {
    const auto output = to_output(text);
    if (output && !places.insert(place_of(*output)).second) {
      out.push_back("--output '" + text + "': given twice; once is enough");
    }
  }
  if (rotate_bytes > 0 && rotate_bytes < kLeastRotateBytes) {
    out.push_back("--rotate-bytes '" + std::to_string(rotate_bytes) +
                  "': would fill the directory with tiny files; use at least 4K, or 0 for never");
  }
  if (rotate_every > 0s && rotate_every < 1s) {
    out.push_back("--rotate-every '" + seconds_text(rotate_every) +
                  "': would fill the directory with tiny files; use at least 1 second, or 0 for never");
  }
  const auto to_files = [](const std::string& o) { return o.starts_with("file:"); };
  if (rotation().wanted() && std::none_of(outputs.begin(), outputs.end(), to_files)) {
    out.push_back("--rotate-" + std::string(rotate_bytes > 0 ? "bytes" : "every") +
                  ": there is no file to rotate; add --output file:PATH, or leave it out");
  }
  need(RecordFormat::parse(format));
  for (auto& problem : lines.problems()) out.push_back(std::move(problem));
  const auto to_mirrors = [](const std::string& o) { return o.starts_with("mirror:"); };
  if (!outputs.empty() && std::all_of(outputs.begin(), outputs.end(), to_mirrors)) {
    for (const auto& flag : lines.given()) {
      out.push_back(flag +
                    ": there are no lines, mirrors are exact; add --output stdout or file:PATH, or leave it out");
    }
  }
  for (const auto& topic : topics) {
    if (const auto problem = wire::topic_problem(topic))
      out.push_back("--topic '" + printable(topic) + "': " + *problem);
  }
  if (!to_shard(shard))
    out.push_back("--shard '" + shard + "': must be I/N with I from 1 to N and N at most 1024, e.g. 2/3");
  if (name.size() > wire::kMaxNameBytes) out.push_back("--name '" + name + "': must be at most 255 bytes");
  for (const auto& text : endpoints) need(parse_endpoint(text));
  for (const auto& text : connect) {
    const auto endpoint = parse_endpoint(text);
    need(endpoint);
    if (endpoint && endpoint->scheme == Endpoint::Scheme::kTcp && (endpoint->host == "*" || !endpoint->port)) {
      out.push_back("--connect '" + text + "': cannot connect to a wildcard; name the producer's host and port");
    }
  }
  if (!control.empty()) need(parse_endpoint(control));
  if (!control.empty() && (epgm() || bind_endpoints().empty())) {
    out.push_back("--control '" + control + "': has no effect " +
                  (epgm() ? "on epgm, where producers listen" : "without --endpoint, because nobody connects to us") +
                  "; leave it out");
  }
  if (endpoints.size() > 1) {
    out.push_back("--endpoint '" + endpoints[1] +
                  "': there is one control link, so only one address to listen at; give one --endpoint, tcp://*:PORT "
                  "for all interfaces");
  }
  if (epgm()) {
    if (!endpoints.empty() || !connect.empty()) {
      out.emplace_back("--endpoint and --connect go with --transport tcp; on epgm use --interface, --group and --port");
    }
    for (auto& problem : multicast.problems()) out.push_back(std::move(problem));
  } else {
    for (auto& problem : multicast.unused_problems()) out.push_back(std::move(problem));
  }
  return out;
}

Rotation ConsumerConfig::rotation() const { return {rotate_bytes, rotate_every}; }

std::vector<ConsumerConfig::Output> ConsumerConfig::sinks() const {
  if (outputs.empty()) return {Output{}};
  std::vector<Output> out;
  for (const auto& text : outputs) {
    if (auto output = to_output(text)) out.push_back(*output);
  }
  return out;
}

std::vector<Endpoint> ConsumerConfig::bind_endpoints() const {
  std::vector<Endpoint> out;
  if (epgm()) return out;
  if (endpoints.empty() && connect.empty())
    out.push_back(Endpoint{Endpoint::Scheme::kTcp, "127.0.0.1", multicast.port});
  for (const auto& text : endpoints) {
    if (auto endpoint = parse_endpoint(text)) out.push_back(*endpoint);
  }
  return out;
}

Interest ConsumerConfig::interest() const {
  const Shard share = to_shard(shard).value_or(Shard{});
  return {topics, share.index, share.count};
}

std::vector<std::string> ConsumerConfig::subscriptions() const {
  std::vector<std::string> out = {std::string(wire::kBeaconSubscription)};
  if (topics.empty()) out.push_back(wire::topic_subscription({}));
  for (const auto& topic : topics) out.push_back(wire::topic_subscription(topic));
  return out;
}

bool ConsumerConfig::durable() const {
  const auto all = sinks();
  return !name.empty() ||
         std::any_of(all.begin(), all.end(), [](const Output& o) { return o.kind != Output::Kind::kStdout; });
}

Result<EpgmConfig> ConsumerConfig::epgm_config() const {
  EpgmConfig out;
  const auto address = multicast.address();
  if (!address) return tl::unexpected(address.error());
  out.address = *address;
  // Only sizes the receive window (rate x time): room for the fastest publisher there can be.
  out.rate_kbit_per_s = 2'000'000;
  return out;
}

SubscriberConfig ConsumerConfig::subscriber(bool is_durable) const {
  SubscriberConfig out;
  out.interest = interest();
  out.durable = is_durable;
  out.repair.repair_after = repair_after;
  out.repair.max_jitter = epgm() ? 50ms : 0ms;
  out.max_pending_bytes = max_pending_bytes;
  return out;
}

}  // namespace fantail
