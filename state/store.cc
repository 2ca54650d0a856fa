#include "state/store.h"

#include <algorithm>

#include "common/json/json.h"
#include "state/operations.h"
#include "state/transaction.h"

namespace fantail::state {
namespace {

Status not_following(std::uint64_t got, std::uint64_t after) {
  return fail(ErrorCode::kCorrupt,
              "revision " + std::to_string(got) + " does not follow " + std::to_string(after) + ": a part is missing");
}

}  // namespace

// ---- transactions

const KeyTable* Transaction::table() const {
  const auto found = store_.namespaces_.find(name_space_);
  return found == store_.namespaces_.end() ? nullptr : &found->second.table;
}

std::optional<KeyTable::View> Transaction::find(std::string_view key) const {
  const KeyTable* keys = table();
  return keys == nullptr ? std::nullopt : keys->find(key);
}

Life Transaction::life_of(std::string_view key) const {
  const auto in = store_.namespaces_.find(name_space_);
  if (in == store_.namespaces_.end()) return {};
  const auto life = in->second.lives.find(key);
  return life == in->second.lives.end() ? Life{} : life->second;
}

Edit& Transaction::edit_of(const std::string& key) {
  const auto [known, is_new] = index_.try_emplace(key, edits_.size());
  if (!is_new) return edits_[known->second];
  Edit edit;
  edit.key = key;
  if (const auto view = find(key)) {
    edit.before = std::string(view->value);
    edit.revision_before = view->revision;
  }
  edit.life_before = life_of(key);
  edits_.push_back(std::move(edit));
  return edits_.back();
}

void Transaction::put(const std::string& key, std::string value, const Life& life) {
  Edit& edit = edit_of(key);
  store_.write(name_space_, key, value, life, store_.revision_ + 1);
  edit.after = std::move(value);
  edit.life = life;
}

void Transaction::erase(const std::string& key) {
  Edit& edit = edit_of(key);
  store_.write(name_space_, key, std::nullopt, {}, store_.revision_ + 1);
  edit.after.reset();
  edit.life = {};
}

void Transaction::take_back() {
  for (auto edit = edits_.rbegin(); edit != edits_.rend(); ++edit) {
    store_.write(name_space_, edit->key, edit->before, edit->life_before, edit->revision_before);
  }
  edits_.clear();
  index_.clear();
}

// ---- the store

bool StateStore::knows(std::string_view operation) { return operation_of(operation) != nullptr; }

tl::expected<std::string, OpError> StateStore::apply(std::string_view operation, std::string_view arguments,
                                                     InstanceId by, WallTime now) {
  const Operation run = operation_of(operation);
  if (run == nullptr) {
    return refuse("unknown_method", "there is no operation '" + std::string(operation) + "'");
  }
  const auto parsed = parse_json(arguments.empty() ? "{}" : arguments, kMaxMessageDepth);
  if (!parsed) return refuse("bad_request", std::string(operation) + ": arguments are " + parsed.error().context);
  if (!parsed->is_object()) return refuse("bad_request", std::string(operation) + ": arguments must be an object");
  std::string name_space = "default";
  if (const auto given = parsed->find("namespace"); given != parsed->end()) {
    if (!given->is_string() || given->get_ref<const std::string&>().empty()) {
      return refuse("bad_request", "namespace must be a text that is not empty; leave it out for 'default'");
    }
    name_space = given->get<std::string>();
  }
  if (name_space.size() > limits_.max_namespace_bytes) {
    return refuse("too_large", "namespace: at most " + std::to_string(limits_.max_namespace_bytes) + " bytes");
  }
  if (namespaces_.size() >= limits_.max_namespaces && !namespaces_.contains(name_space)) {
    return refuse("too_large", "namespace '" + name_space + "': there are " + std::to_string(limits_.max_namespaces) +
                                   " already, no more are possible");
  }
  Transaction transaction(*this, name_space);
  auto result = run(transaction, *parsed, {limits_, sessions_, now, revision_, last_change(name_space)});
  if (!result) return result;
  if (!transaction.empty()) commit(operation, name_space, by, now, transaction.keep());
  return result;
}

void StateStore::commit(std::string_view kind, const std::string& name_space, InstanceId by, WallTime now,
                        std::vector<Edit> edits) {
  last_change_[name_space] = revision_ + 1;
  changes_.push_back({++revision_, now, name_space, std::string(kind), by, std::move(edits)});
}

void StateStore::write(const std::string& name_space, const std::string& key, std::optional<std::string_view> value,
                       const Life& life, std::uint64_t revision) {
  if (!value) {
    const auto in = namespaces_.find(name_space);
    if (in == namespaces_.end()) return;
    in->second.table.erase(key);
    set_life(name_space, in->second, key, {});
    if (in->second.table.size() == 0) namespaces_.erase(in);
    return;
  }
  Namespace& in = namespaces_[name_space];
  in.table.put(key, *value, revision);
  set_life(name_space, in, key, life);
}

void StateStore::set_life(const std::string& name_space, Namespace& in, const std::string& key, const Life& life) {
  if (const auto before = in.lives.find(key); before != in.lives.end()) {
    if (before->second == life) return;
    if (before->second.expires.ns != 0) due_.erase({before->second.expires, name_space, key});
    if (before->second.session) {
      const auto keys = session_keys_.find(before->second.session);
      keys->second.erase({name_space, key});
      if (keys->second.empty()) session_keys_.erase(keys);
    }
    in.lives.erase(before);
  }
  if (!life.limited()) return;
  in.lives[key] = life;
  if (life.expires.ns != 0) due_.insert({life.expires, name_space, key});
  if (life.session) session_keys_[life.session].insert({name_space, key});
}

void StateStore::expire(WallTime now) {
  while (!due_.empty() && due_.begin()->at <= now) {
    const Due due = *due_.begin();
    Transaction transaction(*this, due.name_space);
    transaction.erase(due.key);
    commit("expire", due.name_space, {}, now, transaction.keep());
  }
}

std::optional<WallTime> StateStore::due() const {
  if (due_.empty()) return std::nullopt;
  return due_.begin()->at;
}

void StateStore::close_session(SessionId session, WallTime now) {
  sessions_.erase(session);
  for (auto keys = session_keys_.find(session); keys != session_keys_.end(); keys = session_keys_.find(session)) {
    const auto [name_space, key] = *keys->second.begin();
    Transaction transaction(*this, name_space);
    transaction.erase(key);
    commit("expire", name_space, {}, now, transaction.keep());
  }
}

std::map<SessionId, std::uint32_t> StateStore::sessions_with_keys() const {
  std::map<SessionId, std::uint32_t> out;
  for (const auto& [id, keys] : session_keys_) {
    const auto& [name_space, key] = *keys.begin();
    out[id] = namespaces_.find(name_space)->second.lives.find(key)->second.lease_ms;
  }
  return out;
}

void StateStore::undo(const std::vector<Change>& changes) {
  for (auto change = changes.rbegin(); change != changes.rend(); ++change) {
    --revision_;
    for (auto edit = change->edits.rbegin(); edit != change->edits.rend(); ++edit) {
      write(change->name_space, edit->key, edit->before, edit->life_before, edit->revision_before);
    }
  }
}

Status StateStore::replay(const JournalRecord& record) {
  if (const auto* begin = std::get_if<SnapshotBegin>(&record)) {
    revision_ = last_change_floor_ = begin->revision;
    return {};
  }
  if (const auto* entry = std::get_if<SnapshotEntry>(&record)) {
    write(entry->name_space, entry->key, entry->value, entry->life, entry->revision);
    return {};
  }
  if (std::holds_alternative<SnapshotEnd>(record)) return {};
  const Change& change = std::get<Change>(record);
  if (change.revision != revision_ + 1) return not_following(change.revision, revision_);
  revision_ = change.revision;
  last_change_[change.name_space] = change.revision;
  for (const Edit& edit : change.edits) {
    // An entry of the snapshot may be newer than the changes that follow it.
    const auto in = namespaces_.find(change.name_space);
    const auto view = in == namespaces_.end() ? std::nullopt : in->second.table.find(edit.key);
    if (view && view->revision > change.revision) continue;
    write(change.name_space, edit.key, edit.after, edit.life, change.revision);
  }
  return {};
}

std::uint64_t StateStore::last_change(std::string_view name_space) const {
  const auto found = last_change_.find(name_space);
  return std::max(last_change_floor_, found == last_change_.end() ? std::uint64_t{0} : found->second);
}

std::size_t StateStore::keys() const {
  std::size_t out = 0;
  for (const auto& [name, in] : namespaces_) out += in.table.size();
  return out;
}

std::uint64_t StateStore::bytes() const {
  std::uint64_t out = 0;
  for (const auto& [name, in] : namespaces_) out += in.table.bytes();
  return out;
}

std::vector<std::string> StateStore::namespaces() const {
  std::vector<std::string> out;
  for (const auto& [name, in] : namespaces_) out.push_back(name);
  return out;
}

void StateStore::scan_after(const std::string& name_space, const std::string& key,
                            const std::function<bool(const EntryView&)>& take) const {
  bool go_on = true;
  for (auto in = namespaces_.lower_bound(name_space); in != namespaces_.end() && go_on; ++in) {
    const bool within = in->first == name_space;
    in->second.table.scan(within ? key : std::string(), [&](const KeyTable::View& view) {
      if (within && view.key <= key && !key.empty()) return true;
      const auto life = in->second.lives.find(view.key);
      go_on = take(
          {in->first, view.key, view.value, view.revision, life == in->second.lives.end() ? Life{} : life->second});
      return go_on;
    });
  }
}

}  // namespace fantail::state
