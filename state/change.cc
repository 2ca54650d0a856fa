#include "state/change.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "common/base/digest.h"
#include "common/json/json.h"

namespace fantail::state {
namespace {

// {"sum":"0123456789abcdef",
constexpr std::string_view kSumBegin = R"({"sum":")";
constexpr std::size_t kSumDigits = 16;
constexpr std::size_t kPrefixBytes = kSumBegin.size() + kSumDigits + 2;

void append_life(std::string& out, const Life& life) {
  if (life.expires.ns != 0) out += R"(,"expires":)" + std::to_string(life.expires.ns);
  if (life.session)
    out += R"(,"session":")" + to_string(life.session) + R"(","lease_ms":)" + std::to_string(life.lease_ms);
}

void append_value(std::string& out, std::string_view name, const std::optional<std::string>& value) {
  if (!value) return;
  out += ",\"";
  out += name;
  out += "\":";
  out += *value;
}

/// {"key":value,...} of those edits that have one.
std::string object_of(const std::vector<Edit>& edits, std::optional<std::string> Edit::*which) {
  std::string out = "{";
  for (const Edit& edit : edits) {
    if (!(edit.*which)) continue;
    if (out.size() > 1) out += ',';
    out += json_string(edit.key) + ':' + *(edit.*which);
  }
  return out + '}';
}

/// What stands behind "sum", without the closing brace.
std::string body_of(const Change& change) {
  std::string out = R"("revision":)" + std::to_string(change.revision);
  out += R"(,"time":)" + std::to_string(change.time.ns);
  out += R"(,"namespace":)" + json_string(change.name_space);
  out += R"(,"kind":)" + json_string(change.kind);
  if (change.by) out += R"(,"by":")" + to_string(change.by) + '"';
  if (change.edits.size() == 1) {
    const Edit& edit = change.edits.front();
    out += R"(,"key":)" + json_string(edit.key);
    append_value(out, "before", edit.before);
    append_value(out, "after", edit.after);
    append_life(out, edit.life);
    return out;
  }
  out += R"(,"keys":[)";
  for (std::size_t i = 0; i < change.edits.size(); ++i) out += (i == 0 ? "" : ",") + json_string(change.edits[i].key);
  out += R"(],"before":)" + object_of(change.edits, &Edit::before);
  out += R"(,"after":)" + object_of(change.edits, &Edit::after);
  std::string lives;
  for (const Edit& edit : change.edits) {
    if (!edit.after || !edit.life.limited()) continue;
    std::string life;
    append_life(life, edit.life);
    lives += (lives.empty() ? "" : ",") + json_string(edit.key) + ":{" + life.substr(1) + '}';
  }
  if (!lives.empty()) out += R"(,"lives":{)" + lives + '}';
  return out;
}

std::string body_of(const SnapshotBegin& m) { return R"("kind":"snapshot","revision":)" + std::to_string(m.revision); }
constexpr std::string_view kEntryBegin = R"("kind":"entry","namespace":)";
constexpr std::string_view kEntryKey = R"(,"key":)";
constexpr std::string_view kEntryValue = R"(,"value":)";
constexpr std::string_view kEntryRevision = R"(,"revision":)";

void append_body(std::string& out, const EntryView& m) {
  out.append(kEntryBegin).append(json_string(m.name_space));
  out.append(kEntryKey).append(json_string(m.key));
  out.append(kEntryValue).append(m.value);
  out.append(kEntryRevision).append(std::to_string(m.revision));
  append_life(out, m.life);
}
std::string body_of(const SnapshotEnd& m) {
  return R"("kind":"snapshot-end","revision":)" + std::to_string(m.revision) + R"(,"entries":)" +
         std::to_string(m.entries);
}

template <class Id>
Id id_at(const Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end()) return {};
  const auto id = id_from_hex<Id>(found->get_ref<const std::string&>());
  if (!id) throw std::invalid_argument(name);
  return *id;
}

Life life_of(const Json& object) {
  return {{object.value("expires", std::int64_t{0})},
          id_at<SessionId>(object, "session"),
          object.value("lease_ms", std::uint32_t{0})};
}

std::optional<std::string> text_at(const Json& object, const std::string& name) {
  const auto found = object.find(name);
  if (found == object.end()) return std::nullopt;
  return to_text(*found);
}

Change change_of(const Json& object, std::string kind) {
  Change change;
  change.revision = object.at("revision").get<std::uint64_t>();
  change.time = {object.at("time").get<std::int64_t>()};
  change.name_space = object.at("namespace").get<std::string>();
  change.kind = std::move(kind);
  change.by = id_at<InstanceId>(object, "by");
  if (const auto key = object.find("key"); key != object.end()) {
    change.edits.push_back(
        {key->get<std::string>(), text_at(object, "before"), text_at(object, "after"), life_of(object), {}, 0});
    return change;
  }
  const Json& before = object.at("before");
  const Json& after = object.at("after");
  const auto lives = object.find("lives");
  for (const Json& key : object.at("keys")) {
    Edit edit;
    edit.key = key.get<std::string>();
    edit.before = text_at(before, edit.key);
    edit.after = text_at(after, edit.key);
    if (lives != object.end()) {
      if (const auto life = lives->find(edit.key); life != lives->end()) edit.life = life_of(*life);
    }
    change.edits.push_back(std::move(edit));
  }
  return change;
}

JournalRecord record_of(const Json& object) {
  auto kind = object.at("kind").get<std::string>();
  if (kind == "snapshot") return SnapshotBegin{object.at("revision").get<std::uint64_t>()};
  if (kind == "entry") {
    return SnapshotEntry{object.at("namespace").get<std::string>(), object.at("key").get<std::string>(),
                         to_text(object.at("value")), object.at("revision").get<std::uint64_t>(), life_of(object)};
  }
  if (kind == "snapshot-end") {
    return SnapshotEnd{object.at("revision").get<std::uint64_t>(), object.at("entries").get<std::uint64_t>()};
  }
  return change_of(object, std::move(kind));
}

}  // namespace

namespace {

/// Appends a line; `append_body` appends what stands behind the sum, without the closing brace.
template <class AppendBody>
void append_record(std::string& out, const AppendBody& append_body) {
  const std::size_t begin = out.size();
  out.append(kPrefixBytes, ' ');
  append_body();
  out += '}';
  // Over everything behind the comma, the newline left out.
  std::uint64_t sum = digest(as_bytes(std::string_view(out).substr(begin + kPrefixBytes)));
  out.replace(begin, kSumBegin.size(), kSumBegin);
  for (std::size_t i = kSumDigits; i > 0; --i, sum >>= 4)
    out[begin + kSumBegin.size() + i - 1] = "0123456789abcdef"[sum & 15];
  out[begin + kPrefixBytes - 2] = '"';
  out[begin + kPrefixBytes - 1] = ',';
  out += '\n';
}

std::string line_of(std::string_view body) {
  std::string line;
  line.reserve(kPrefixBytes + body.size() + 2);
  append_record(line, [&] { line += body; });
  return line;
}

/// An entry as append_body() writes it, without escapes and lives, read without a parser: most of a snapshot is of
/// these.
std::optional<SnapshotEntry> plain_entry(std::string_view body) {
  const auto skip = [&](std::string_view text) {
    if (!body.starts_with(text)) return false;
    body.remove_prefix(text.size());
    return true;
  };
  const auto text = [&]() -> std::optional<std::string_view> {
    if (!skip("\"")) return std::nullopt;
    const auto end = body.find_first_of("\"\\");
    if (end == std::string_view::npos || body[end] != '"') return std::nullopt;
    const auto found = body.substr(0, end);
    body.remove_prefix(end + 1);
    return found;
  };
  if (!skip(kEntryBegin)) return std::nullopt;
  const auto name_space = text();
  if (!name_space || !skip(kEntryKey)) return std::nullopt;
  const auto key = text();
  if (!key || !skip(kEntryValue)) return std::nullopt;
  const auto end = body.rfind(kEntryRevision);
  if (end == std::string_view::npos || !body.ends_with('}')) return std::nullopt;
  const std::string_view digits =
      body.substr(end + kEntryRevision.size(), body.size() - 1 - end - kEntryRevision.size());
  std::uint64_t revision = 0;
  const auto [last, error] = std::from_chars(digits.data(), digits.data() + digits.size(), revision);
  if (error != std::errc{} || last != digits.data() + digits.size()) return std::nullopt;
  return SnapshotEntry{std::string(*name_space), std::string(*key), std::string(body.substr(0, end)), revision, {}};
}

}  // namespace

std::string to_line(const Change& change) { return line_of(body_of(change)); }
std::string to_line(const SnapshotBegin& begin) { return line_of(body_of(begin)); }
std::string to_line(const SnapshotEnd& end) { return line_of(body_of(end)); }
std::string to_line(const SnapshotEntry& entry) {
  std::string line;
  append_line(line, {entry.name_space, entry.key, entry.value, entry.revision, entry.life});
  return line;
}
void append_line(std::string& out, const EntryView& entry) {
  append_record(out, [&] { append_body(out, entry); });
}
std::string to_line(const JournalRecord& record) {
  return std::visit([](const auto& r) { return to_line(r); }, record);
}

Result<JournalRecord> parse_line(std::string_view line) {
  if (line.size() <= kPrefixBytes || !line.starts_with(kSumBegin)) {
    return fail(ErrorCode::kCorrupt, "not a record: it does not begin with a sum");
  }
  const std::string_view digits = line.substr(kSumBegin.size(), kSumDigits);
  std::uint64_t sum = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), sum, 16);
  const std::string_view body = line.substr(kPrefixBytes);
  if (error != std::errc{} || end != digits.data() + digits.size() || digest(as_bytes(body)) != sum) {
    return fail(ErrorCode::kCorrupt, "damaged record: its sum differs");
  }
  if (auto entry = plain_entry(body)) return JournalRecord(std::move(*entry));
  const auto object = parse_json("{" + std::string(body), kMaxMessageDepth);
  if (!object) return fail(ErrorCode::kCorrupt, "damaged record: " + object.error().context);
  try {
    return record_of(*object);
  } catch (const std::exception& e) {
    return fail(ErrorCode::kCorrupt, std::string("damaged record: ") + e.what());
  }
}

std::string to_event(const Change& change) { return "{" + body_of(change) + "}"; }

}  // namespace fantail::state
