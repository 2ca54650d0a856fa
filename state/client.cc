#include "state/client.h"

#include <cstdlib>

#include "common/base/program.h"
#include "common/base/version.h"
#include "common/json/json.h"
#include "common/transport/endpoint.h"
#include "state/server_config.h"

namespace fantail::state {
namespace {

using rpc::CallError;

tl::unexpected<CallError> not_understood(std::string_view operation, const std::string& why) {
  return tl::unexpected(CallError{CallError::Kind::kRemote,
                                  "bad_answer",
                                  std::string(operation) + ": the server's answer cannot be read: " + why,
                                  {}});
}

}  // namespace

std::string server_address(const std::string& given) {
  if (!given.empty()) return given;
  const char* from_environment = std::getenv("FANTAIL_STATE");
  return from_environment != nullptr && *from_environment != '\0' ? from_environment : kDefaultServer;
}

std::string unreachable_hint(const Context& context) {
  return context.key() ? "; is 'fantail-state serve' running there, with the same --key-file?"
                       : "; is 'fantail-state serve' running there? If it has a --key-file, name it here too";
}

StateClient::StateClient(ClientConfig config) : config_(std::move(config)) {}
StateClient::~StateClient() = default;

Result<std::unique_ptr<StateClient>> StateClient::open(ClientConfig config) {
  config.server = server_address(config.server);
  const auto endpoint = parse_endpoint(config.server);
  if (!endpoint) return tl::unexpected(endpoint.error());
  if (endpoint->is_wildcard()) {
    return fail(ErrorCode::kInvalid,
                "server '" + config.server + "': cannot connect to a wildcard; name host and port");
  }
  std::unique_ptr<StateClient> client(new StateClient(std::move(config)));
  if (auto ok = client->use_namespace(client->config_.name_space); !ok) return tl::unexpected(ok.error());
  if (auto ok = client->context_.protect_by(client->config_.key_file); !ok) return tl::unexpected(ok.error());
  wire::Peer self;
  self.role = wire::Role::kClient;
  self.software = std::string("fantail ") + kVersion;
  self.instance = client->instance_;
  self.name = host_name();
  auto link = rpc::RpcClient::connect(client->context_, client->config_.server, std::move(self),
                                      {.timing = {}, .max_message_bytes = kMaxMessageBytes});
  if (!link) return tl::unexpected(link.error());
  client->link_ = std::move(*link);
  return client;
}

Status StateClient::use_namespace(std::string name_space) {
  if (name_space.empty()) {
    return fail(ErrorCode::kInvalid, "namespace '': must not be empty; leave it out for 'default'");
  }
  config_.name_space = std::move(name_space);
  return {};
}

StateClient::Answer<std::string> StateClient::call_text(std::string_view operation, Json arguments, bool repeatable,
                                                        const rpc::CallTable::OnPartial& on_partial) {
  if (arguments.is_null()) arguments = Json::object();
  if (!arguments.contains("namespace")) arguments["namespace"] = config_.name_space;
  std::string text;
  try {
    text = to_text(arguments);
  } catch (const Json::exception& e) {  // texts that are no UTF-8
    return tl::unexpected(CallError{CallError::Kind::kRemote, "bad_request", e.what(), {}});
  }
  if (text.size() >= kMaxMessageBytes) {
    return tl::unexpected(CallError{CallError::Kind::kRemote,
                                    "too_large",
                                    std::string(operation) + ": the request has " + std::to_string(text.size()) +
                                        " bytes, a server takes " + std::to_string(kMaxMessageBytes) +
                                        "; send it in parts",
                                    {}});
  }
  auto result = link_->call(operation, text, {.timeout = config_.timeout, .repeatable = repeatable}, on_partial);
  if (!result && result.error().kind == CallError::Kind::kUnreachable) {
    result.error().message += unreachable_hint(context_);
  }
  return result;
}

StateClient::Answer<StateClient::Json> StateClient::call(std::string_view operation, Json arguments, bool repeatable) {
  const auto text = call_text(operation, std::move(arguments), repeatable);
  if (!text) return tl::unexpected(text.error());
  auto parsed = parse_json(*text, kMaxMessageDepth);
  if (!parsed) return not_understood(operation, parsed.error().context);
  return std::move(*parsed);
}

namespace {

/// The member "value" of an answer.
StateClient::Answer<Json> value_in(std::string_view operation, StateClient::Answer<Json> answer) {
  if (!answer) return answer;
  const auto value = answer->find("value");
  if (value == answer->end()) return not_understood(operation, "no value");
  return Json(std::move(*value));
}

StateClient::Answer<void> nothing_in(const StateClient::Answer<std::string>& answer) {
  if (!answer) return tl::unexpected(answer.error());
  return {};
}

StateClient::Answer<std::size_t> number_in(std::string_view operation, const StateClient::Answer<Json>& value) {
  if (!value) return tl::unexpected(value.error());
  if (!value->is_number_unsigned()) return not_understood(operation, "no number");
  return value->get<std::size_t>();
}

}  // namespace

StateClient::Answer<Json> StateClient::get(const std::string& key) {
  return value_in("get", call("get", {{"key", key}}, true));
}
StateClient::Answer<Json> StateClient::get(const std::string& key, const Json& otherwise) {
  return value_in("get", call("get", {{"key", key}, {"default", otherwise}}, true));
}
StateClient::Answer<bool> StateClient::has(const std::string& key) {
  const auto value = value_in("has", call("has", {{"key", key}}, true));
  if (!value) return tl::unexpected(value.error());
  return *value == true;
}
StateClient::Answer<Json> StateClient::keys(const std::string& prefix) {
  return value_in("keys", call("keys", {{"prefix", prefix}}, true));
}
StateClient::Answer<Json> StateClient::items(const std::string& prefix) {
  return value_in("items", call("items", {{"prefix", prefix}}, true));
}
StateClient::Answer<std::size_t> StateClient::size() {
  return number_in("size", value_in("size", call("size", {}, true)));
}

StateClient::Answer<void> StateClient::set(const std::string& key, const Json& value, const PutOptions& put) {
  Json arguments = {{"key", key}, {"value", value}};
  if (put.ttl) arguments["ttl_ms"] = static_cast<std::uint64_t>(std::max<std::int64_t>(to_milliseconds(*put.ttl), 1));
  if (put.session) arguments["session"] = to_string(put.session);
  return nothing_in(call_text("set", std::move(arguments)));
}
StateClient::Answer<void> StateClient::erase(const std::string& key) {
  return nothing_in(call_text("delete", {{"key", key}}));
}
StateClient::Answer<Json> StateClient::pop(const std::string& key) {
  return value_in("pop", call("pop", {{"key", key}}));
}
StateClient::Answer<Json> StateClient::setdefault(const std::string& key, const Json& value) {
  return value_in("setdefault", call("setdefault", {{"key", key}, {"value", value}}, true));
}
StateClient::Answer<void> StateClient::update(const Json& values) {
  return nothing_in(call_text("update", {{"values", values}}));
}
StateClient::Answer<void> StateClient::replace(const Json& values) {
  return nothing_in(call_text("replace", {{"values", values}}));
}
StateClient::Answer<void> StateClient::clear() { return nothing_in(call_text("clear", {})); }
StateClient::Answer<Json> StateClient::increment(const std::string& key, const Json& by) {
  return value_in("increment", call("increment", {{"key", key}, {"by", by}}));
}
StateClient::Answer<Json> StateClient::decrement(const std::string& key, const Json& by) {
  return value_in("decrement", call("decrement", {{"key", key}, {"by", by}}));
}
StateClient::Answer<std::size_t> StateClient::append(const std::string& key, const Json& item) {
  return number_in("append", value_in("append", call("append", {{"key", key}, {"value", item}})));
}
StateClient::Answer<void> StateClient::compare_and_set(const std::string& key, const Json& old, const Json& value) {
  return nothing_in(call_text("cas", {{"key", key}, {"old", old}, {"value", value}}));
}

StateClient::Answer<Json> StateClient::atomic(const std::function<Json(Json&)>& change, int tries) {
  for (int i = 0; i < tries; ++i) {
    const auto read = call("items", {}, true);
    if (!read) return tl::unexpected(read.error());
    const Json before = read->value("value", Json::object());
    Json after = before;
    Json result = change(after);
    Json steps = Json::array();
    for (const auto& [key, value] : after.items()) {
      const auto old = before.find(key);
      if (old == before.end() || *old != value) steps.push_back({"set", key, value});
    }
    for (const auto& [key, value] : before.items()) {
      if (!after.contains(key)) steps.push_back({"delete", key});
    }
    if (steps.empty()) return result;
    const auto done = call("txn", {{"unchanged_since", read->value("revision", std::uint64_t{0})}, {"then", steps}});
    if (!done) return tl::unexpected(done.error());
    if (done->value("succeeded", false)) return result;
  }
  return tl::unexpected(CallError{CallError::Kind::kRemote,
                                  "conflict",
                                  "others changed the state during each of " + std::to_string(tries) + " tries",
                                  {}});
}

StateClient::Answer<SessionId> StateClient::open_session(Duration lease) {
  const auto answer = call("session_open", {{"lease_ms", to_milliseconds(lease)}});
  if (!answer) return tl::unexpected(answer.error());
  const auto id = id_from_hex<SessionId>(answer->value("session", ""));
  if (!id) return not_understood("session_open", "no session");
  return *id;
}
StateClient::Answer<void> StateClient::renew_session(SessionId session) {
  return nothing_in(call_text("session_renew", {{"session", to_string(session)}}, true));
}
StateClient::Answer<void> StateClient::close_session(SessionId session) {
  return nothing_in(call_text("session_close", {{"session", to_string(session)}}));
}

}  // namespace fantail::state
