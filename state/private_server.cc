#include "state/private_server.h"

#include <filesystem>
#include <stdexcept>

#include "common/base/signals.h"
#include "common/json/json.h"
#include "state/client.h"
#include "state/server.h"

namespace fantail::state {
namespace {

constexpr Duration kServerStart = 10s;

/// In the server's process.
Json serve_privately(const Json& argument) {
  ServerConfig config;
  config.endpoint = argument["endpoint"].get<std::string>();
  config.state_dir = argument["state_dir"].get<std::string>();
  config.durability = "none";
  log::set_up(log::Level::kWarn);
  auto signals = StopSignals::block();
  auto server =
      signals ? StateServer::open(config) : Result<std::unique_ptr<StateServer>>(tl::unexpected(signals.error()));
  if (!server) throw std::runtime_error(server.error().context);
  const int code = (*server)->run(*signals);
  // Also when whoever made the place was killed.
  std::error_code ec;
  std::filesystem::remove_all(argument["place"].get<std::string>(), ec);
  if (code != 0) throw ProcessExit{code};
  return {};
}

}  // namespace

Result<PrivateServer> PrivateServer::start(ProcessGroup& group) {
  auto place = PrivateDirectory::make();
  if (!place) return tl::unexpected(place.error());
  const std::string address = "ipc://" + (place->path() / "state").string();
  Task serving;
  serving.function = serve_privately;
  serving.argument = {
      {"endpoint", address}, {"state_dir", (place->path() / "journal").string()}, {"place", place->path().string()}};
  const auto index = group.start(std::move(serving));
  if (!index) return tl::unexpected(index.error());
  const auto client = StateClient::open({.server = address, .timeout = kServerStart});
  if (!client) return tl::unexpected(client.error());
  if (const auto answer = (*client)->call("ping", {}, true); !answer) {
    return fail(ErrorCode::kIo, "the private server does not answer: " + answer.error().message);
  }
  return PrivateServer(std::move(*place), address, *index);
}

}  // namespace fantail::state
