#pragma once

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

#include "state/private_server.h"
#include "state/watcher.h"

namespace example {

using namespace fantail;
using namespace fantail::state;
using Json = nlohmann::json;

/// The value, or an end with the reason: an example has nobody to tell it to.
template <class T>
T need(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().context);
  return std::move(*result);
}
template <class T>
T need(rpc::CallResult<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

/// A function that runs in a process of its own. Its argument has at least "server".
inline Task process(std::function<Json(const Json&)> function, Json argument) {
  Task task;
  task.function = std::move(function);
  task.argument = std::move(argument);
  return task;
}

inline std::unique_ptr<StateClient> state_at(const Json& argument) {
  return need(StateClient::open({.server = argument.at("server").get<std::string>()}));
}

/// Follows changes of one key from the beginning.
inline std::unique_ptr<StateWatcher> watch(const Json& argument, const std::string& key) {
  WatcherConfig config;
  config.server = argument.at("server").get<std::string>();
  config.spec.keys = {key};
  config.from = 0;
  return need(StateWatcher::open(std::move(config)));
}

/// The value that the next change leaves in its key; null where it was deleted.
inline Json next_value(StateWatcher& watcher) {
  const auto event = need(watcher.next(std::nullopt));
  return Json::parse(event->change->edits.at(0).after.value_or("null"));
}

}  // namespace example
