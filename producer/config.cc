#include "producer/config.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "common/wire/codec.h"

namespace fantail {
namespace {

constexpr Duration kLeastForgetAfter = 1min;  // a consumer that is started anew is not gone

struct Argument {
  std::string topic = kDefaultTopic;
  std::string pattern;
};

/// [TOPIC=]GLOB. What begins like a path is all pattern, so that file names with '=' need no topic.
Argument split_argument(const std::string& text) {
  const bool path = text.starts_with('/') || text.starts_with("./") || text.starts_with("../");
  const auto equals = text.find('=');
  if (path || equals == std::string::npos) return {kDefaultTopic, text};
  return {text.substr(0, equals), text.substr(equals + 1)};
}

/// A name without / is left out wherever it stands, as people expect of '*.gz'.
std::string exclusion(const std::string& text) { return text.find('/') == std::string::npos ? "/**/" + text : text; }

/// TOPIC=MB/s; the last '=' divides, because topics may have some.
std::optional<TopicLimit> to_limit(const std::string& text) {
  constexpr double kLeast = 0.001;
  constexpr double kMost = 100'000;
  const auto equals = text.rfind('=');
  if (equals == std::string::npos) return std::nullopt;
  double megabytes = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + equals + 1, end, megabytes);
  if (error != std::errc{} || stop != end || !(megabytes >= kLeast && megabytes <= kMost)) return std::nullopt;
  return TopicLimit{text.substr(0, equals), static_cast<std::uint64_t>(megabytes * 1e6)};
}

/// What --from says of each file argument; nothing for one that stands before the first of several.
std::vector<std::optional<std::string>> from_of_each(const ProducerConfig& config) {
  if (config.from.size() <= 1) {
    return {config.files.size(), config.from.empty() ? "beginning" : config.from.front()};
  }
  std::vector<std::optional<std::string>> out;
  std::optional<std::string> here;
  for (const OptionSet::Given& given : config.in_order) {
    if (given.name == "from") here = given.value;
    if (given.name == "file") out.push_back(here);
  }
  out.resize(config.files.size());
  return out;
}

/// Which of the two stands last.
std::string last_of_files_and_from(const std::vector<OptionSet::Given>& given) {
  const auto last =
      std::find_if(given.rbegin(), given.rend(), [](const auto& g) { return g.name == "from" || g.name == "file"; });
  return last == given.rend() ? std::string() : last->name;
}

std::optional<CompressionConfig> to_compression(const std::string& text) {
  using Mode = CompressionConfig::Mode;
  if (text == "auto") return CompressionConfig{Mode::kAuto, 1};
  if (text == "none") return CompressionConfig{Mode::kNone, 1};
  if (text == "zstd") return CompressionConfig{Mode::kZstd, 1};
  if (!text.starts_with("zstd:")) return std::nullopt;
  int level = 0;
  const char* begin = text.data() + 5;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(begin, end, level);
  if (error != std::errc{} || stop != end || level < 1 || level > 19) return std::nullopt;
  return CompressionConfig{Mode::kZstd, level};
}

}  // namespace

void ProducerConfig::describe(OptionSet& options) {
  options.positional(files, "[TOPIC=]GLOB...",
                     "files to tail; ** crosses directories; the topic is '" + std::string(kDefaultTopic) +
                         "' unless given; a directory means everything below it");
  options.group("Files");
  options.list("exclude", exclude, "GLOB", "leave these files and directories out; without / at any depth");
  options.list("rotated", rotated, "GLOB",
               "where else to look for known files that a rotator moved; never for new ones");
  options.in_order(in_order);
  options.list("from", from, "beginning|end",
               "where to begin in files that exist at the very first start (default beginning); one is for all "
               "files, of several each is for the patterns behind it");
  options.seconds("ignore-older", ignore_older,
                  "leave new files alone that were not modified for so long, until they are written to; 0: none");
  options.choice("order", order, {"oldest", "newest", "name"}, "with which files of a backlog to begin");
  options.choice("archives", archives, {"decompress", "raw"},
                 "what the stream of a new .gz or .zst file is: what is in it, or the file as it is");
  options.seconds("rescan", rescan,
                  "walk all directories this often, in case a change was missed; less often where it takes long",
                  100ms);
  options.flag(
      "poll", poll,
      "do not rely on inotify: walk every --rescan seconds, at most 1; walking takes a tenth of the time at most");
  options.flag("once", once, "exit when every byte of every matching file is committed by a durable consumer");
  options.flag("delete-after-commit", delete_after_commit,
               "delete a file when every durable consumer that wants it has committed all of it");
  options.seconds("delete-grace", delete_grace, "so long after that");
  options.seconds("hold-time", hold_time, "keep deleted files readable this long for consumers that miss something");
  options.bytes("hold-bytes", hold_bytes, 0, "keep at most so many uncommitted bytes of deleted files; 0: no limit");
  options.seconds("forget-after", forget_after,
                  "a durable consumer that is away for so long is forgotten; 0: after --hold-time, at least a minute");
  options.list("forget", forget, "NAME", "forget this durable consumer now: nothing is held for it any more");
  options.group("Transport");
  options.choice("transport", transport, {"tcp", "epgm"}, "how broadcasts travel");
  options.list("endpoint", endpoints, "ADDR", "tcp or ipc: where a consumer listens (default tcp://127.0.0.1:5550)");
  options.flag("bind", bind, "listen on --endpoint instead, then one; consumers connect with --connect");
  multicast.describe(options, "tcp: the port of the default endpoint");
  options.text("control", control, "ADDR", "address of the control link (default: data port + 1; epgm: any free port)");
  options.text("advertise", advertise, "ADDR",
               "epgm: control address told to consumers, where it differs from the bound one");
  options.number("rate", rate_mbit, 0, 10'000, "MBIT", "pace broadcasts; 0: 200 on epgm, unlimited on tcp");
  options.list("limit", limit, "TOPIC=MB/s", "pace broadcasts of this topic and all under it");
  options.flag("fair", fair, "topics share the broadcast by bytes; without it files take turns");
  options.text("compression", compression, "auto|none|zstd[:LEVEL]", "auto: only while the wire is the bottleneck");
  options.bytes("chunk", chunk_bytes, 512, "largest piece of a file in one message");
  options.milliseconds("patience", patience, "how long a consumer with a full queue may hold up the others");
  options.group("Node");
  options.text("node", node, "NAME", "name of this node (default: the host name)");
  options.text("state-dir", state_dir, "DIR",
               "where positions are kept (default: $STATE_DIRECTORY, /var/lib/fantail or XDG)");
  options.seconds("drain", drain, "on SIGTERM: time to send what is left and wait for commits");
  options.log_level(log_level);
}

std::vector<std::string> ProducerConfig::problems() const {
  std::vector<std::string> out;
  const auto need = [&](const auto& result) {
    if (!result) out.push_back(result.error().context);
  };
  if (files.empty())
    out.emplace_back("no file to tail: give at least one [TOPIC=]GLOB, e.g. fantail-producer '/var/log/*.log'");
  for (const auto& text : files) {
    const Argument argument = split_argument(text);
    if (const auto problem = wire::topic_problem(argument.topic))
      out.push_back("'" + printable(text) + "': " + *problem);
    need(Glob::parse(argument.pattern));
  }
  for (const auto& text : exclude) need(Glob::parse(exclusion(text)));
  for (const auto& text : from) {
    if (text != "beginning" && text != "end")
      out.push_back("--from '" + printable(text) + "': must be beginning or end");
  }
  const auto from_of = from_of_each(*this);
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (from_of[i]) continue;
    out.push_back("'" + printable(files[i]) + "': stands before the first of several --from; put one before it");
  }
  if (from.size() > 1 && last_of_files_and_from(in_order) == "from") {
    out.push_back("--from '" + printable(from.back()) + "': no file stands behind it; put it before its files");
  }
  for (const auto& text : limit) {
    const auto parsed = to_limit(text);
    if (!parsed) {
      out.push_back("--limit '" + printable(text) +
                    "': must be TOPIC=MB/s, megabytes (10^6) from 0.001 to 100000 with or without decimals, e.g. "
                    "debug=0.5");
    } else if (const auto problem = wire::topic_problem(parsed->topic)) {
      out.push_back("--limit '" + printable(text) + "': " + *problem);
    }
  }
  for (const auto& text : rotated) need(Glob::parse(text));
  if (!to_compression(compression)) {
    out.push_back("--compression '" + compression +
                  "': must be auto, none, zstd or zstd:LEVEL with a level from 1 to 19");
  }
  if (chunk_bytes > wire::kMaxChunkBytes) {
    out.push_back("--chunk '" + std::to_string(chunk_bytes) + "': must be at most " +
                  std::to_string(wire::kMaxChunkBytes) + " bytes");
  }
  const bool control_characters = std::any_of(node.begin(), node.end(), [](unsigned char c) { return c < 0x20; });
  if (node.size() > wire::kMaxNameBytes || node.find('/') != std::string::npos || node == "." || node == ".." ||
      control_characters) {
    out.push_back("--node '" + printable(node) +
                  "': must be at most 255 bytes without '/' and control characters, and not '.' or '..'");
  }
  for (const auto& text : endpoints) need(parse_endpoint(text));
  const auto control_at = parse_endpoint(control);
  const auto told = parse_endpoint(advertise);
  if (!control.empty()) need(control_at);
  if (!advertise.empty()) need(told);
  if (epgm()) {
    if (!control.empty() && control_at && control_at->scheme != Endpoint::Scheme::kTcp) {
      out.push_back("--control '" + control + "': consumers on epgm reach it over tcp only; use tcp://HOST:PORT");
    }
    if (!advertise.empty() && told && (told->scheme != Endpoint::Scheme::kTcp || told->is_wildcard() || !told->port)) {
      out.push_back("--advertise '" + advertise + "': consumers cannot connect to it; use tcp://HOST:PORT");
    }
    if (!endpoints.empty())
      out.emplace_back("--endpoint goes with --transport tcp; on epgm use --interface, --group and --port");
    if (bind) out.emplace_back("--bind goes with --transport tcp; on epgm everybody joins the group");
    for (auto& problem : multicast.problems()) out.push_back(std::move(problem));
    return out;
  }
  for (auto& problem : multicast.unused_problems()) out.push_back(std::move(problem));
  if (!advertise.empty()) {
    out.push_back("--advertise '" + advertise +
                  "': has no effect on tcp, where nothing is announced; leave it out, or use --transport epgm");
  }
  if (endpoints.size() > 1 && bind) {
    out.push_back("--endpoint '" + endpoints[1] +
                  "': with --bind there is one control link, so only one address to listen at; give one --endpoint, "
                  "tcp://*:PORT for all interfaces");
  }
  if (endpoints.size() > 1 && !bind && !control.empty()) {
    out.push_back("--control '" + control +
                  "': is one address, and each --endpoint is a consumer with its own; leave it out, they are at the "
                  "next ports");
  }
  if (!bind) {
    for (const auto& endpoint : data_endpoints()) {
      if (endpoint.scheme == Endpoint::Scheme::kTcp && (endpoint.host == "*" || !endpoint.port)) {
        out.push_back("--endpoint '" + endpoint.to_string() +
                      "': cannot connect to a wildcard; name the consumer's host and port");
      }
    }
  }
  return out;
}

std::vector<Selection> ProducerConfig::selections() const {
  std::vector<Selection> out;
  const auto from_of = from_of_each(*this);
  for (std::size_t i = 0; i < files.size(); ++i) {
    Argument argument = split_argument(files[i]);
    out.push_back({std::move(*Glob::parse(argument.pattern)), argument.topic, from_of[i] == "end"});
  }
  return out;
}

StartOrder ProducerConfig::start_order() const {
  if (order == "name") return StartOrder::kName;
  return order == "newest" ? StartOrder::kNewest : StartOrder::kOldest;
}

std::vector<Glob> ProducerConfig::excludes() const {
  std::vector<Glob> out;
  for (const auto& text : exclude) out.push_back(std::move(*Glob::parse(exclusion(text))));
  return out;
}

std::vector<Endpoint> ProducerConfig::data_endpoints() const {
  if (endpoints.empty()) return {Endpoint{Endpoint::Scheme::kTcp, "127.0.0.1", multicast.port}};
  std::vector<Endpoint> out;
  for (const auto& text : endpoints) {
    if (auto endpoint = parse_endpoint(text)) out.push_back(*endpoint);
  }
  return out;
}

BroadcastConfig ProducerConfig::broadcast() const {
  const std::uint64_t mbit = rate_mbit == 0 && epgm() ? kDefaultMulticastMbit : rate_mbit;
  BroadcastConfig out;
  out.chunk_bytes = static_cast<std::uint32_t>(chunk_bytes);
  out.rate_bytes_per_s = mbit * 1'000'000 / 8;
  for (const auto& text : limit) out.limits.push_back(*to_limit(text));
  out.fair = fair;
  out.adapt_to_loss = epgm();
  out.patience = patience;
  out.compression = to_compression(compression).value_or(CompressionConfig{});
  return out;
}

Result<EpgmConfig> ProducerConfig::epgm_config() const { return multicast.to_send(rate_mbit); }

TailerConfig ProducerConfig::tailer() const {
  TailerConfig out;
  out.rescan = poll ? std::min<Duration>(rescan, 1s) : rescan;
  out.ignore_older = ignore_older;
  if (delete_after_commit) out.delete_after = delete_grace;
  out.order = start_order();
  out.decompress = archives == "decompress";
  out.hold_time = hold_time;
  out.hold_bytes = hold_bytes;
  out.rotated = rotated;
  out.forget_after = forget_after > 0s ? forget_after : std::max<Duration>(hold_time, kLeastForgetAfter);
  return out;
}

}  // namespace fantail
