#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/rpc/rpc_client.h"
#include "state/change.h"

namespace fantail::state {

struct ClientConfig {
  std::string server;  ///< "tcp://HOST:PORT" or "ipc://PATH"; empty: $FANTAIL_STATE, else the default
  std::string name_space = "default";
  std::string key_file{};  ///< empty: $FANTAIL_KEY_FILE, else no key
  Duration timeout = 5s;   ///< of each call, connecting included; zero: for ever
};

/// How long what is set lives.
struct PutOptions {
  std::optional<Duration> ttl;
  SessionId session;
};

/// A handle on the dictionary that a state server keeps. Every method is one request and atomic; values are JSON. Opens
/// its connection with the first request and again when the server was restarted. One thread; make one for each.
///
/// Errors are CallError. kRemote types: "key_absent", "condition_failed", "wrong_type", "overflow", "too_large",
/// "bad_request", "empty", "session_unknown", "compacted", "diverged", "no_space", "io". After kLost and kTimeout a
/// change may or may not have been made.
class StateClient {
 public:
  using Json = nlohmann::json;
  template <class T>
  using Answer = rpc::CallResult<T>;

  /// kInvalid: an address or a namespace that cannot be one. Does not wait for the server.
  static Result<std::unique_ptr<StateClient>> open(ClientConfig config = {});
  ~StateClient();

  const std::string& server() const { return config_.server; }
  const std::string& name_space() const { return config_.name_space; }
  /// kInvalid for an empty one; later requests are of that namespace.
  Status use_namespace(std::string name_space);
  /// Names this handle in events: Change::by.
  InstanceId instance() const { return instance_; }

  Answer<Json> get(const std::string& key);
  Answer<Json> get(const std::string& key, const Json& otherwise);
  Answer<bool> has(const std::string& key);
  Answer<Json> keys(const std::string& prefix = {});
  Answer<Json> items(const std::string& prefix = {});  ///< a snapshot: changing it changes nothing at the server
  Answer<std::size_t> size();

  Answer<void> set(const std::string& key, const Json& value, const PutOptions& put = {});
  Answer<void> erase(const std::string& key);
  Answer<Json> pop(const std::string& key);
  Answer<Json> setdefault(const std::string& key, const Json& value);
  Answer<void> update(const Json& values);
  Answer<void> replace(const Json& values);
  Answer<void> clear();
  Answer<Json> increment(const std::string& key, const Json& by);
  Answer<Json> decrement(const std::string& key, const Json& by);
  Answer<std::size_t> append(const std::string& key, const Json& item);
  Answer<void> compare_and_set(const std::string& key, const Json& old, const Json& value);

  /// Reads the whole namespace, lets `change` compute on a copy, and commits that only if the namespace
  /// was not changed meanwhile; else again, at most `tries` times. What `change` throws leaves the state untouched and
  /// reaches the caller. kRemote "conflict": others were always faster.
  Answer<Json> atomic(const std::function<Json(Json& items)>& change, int tries = 100);

  /// Any operation of docs/protocol.md by its name; the namespace is added. `repeatable`: harmless when done twice.
  Answer<Json> call(std::string_view operation, Json arguments, bool repeatable = false);
  /// The same for the text of the result, without parsing it.
  Answer<std::string> call_text(std::string_view operation, Json arguments, bool repeatable = false,
                                const rpc::CallTable::OnPartial& on_partial = {});

  Answer<SessionId> open_session(Duration lease);
  Answer<void> renew_session(SessionId session);
  Answer<void> close_session(SessionId session);

  rpc::RpcClient& link() { return *link_; }

 private:
  explicit StateClient(ClientConfig config);
  ClientConfig config_;
  InstanceId instance_ = random_id<InstanceId>();
  Context context_;
  std::unique_ptr<rpc::RpcClient> link_;
};

/// $FANTAIL_STATE, or the default address.
std::string server_address(const std::string& given);
/// What may be wrong where nobody answers.
std::string unreachable_hint(const Context& context);

}  // namespace fantail::state
