#include "common/rpc/admin.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "common/base/version.h"
#include "common/transport/endpoint.h"

namespace fantail::rpc {
namespace {

constexpr mode_t kOursAlone = 0177;
constexpr std::array<std::pair<ErrorCode, std::string_view>, 4> kTypes = {{{ErrorCode::kInvalid, "invalid"},
                                                                           {ErrorCode::kNotFound, "not_found"},
                                                                           {ErrorCode::kBusy, "busy"},
                                                                           {ErrorCode::kUnsupported, "unsupported"}}};
constexpr std::string_view kOtherType = "failed";

Result<UniqueFd> open_place(const std::filesystem::path& state) {
  UniqueFd fd(::open(state.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "state directory " + state.string());
  return fd;
}

/// The names of sockets are at most 107 bytes long, those of directories are not.
std::string socket_in(const UniqueFd& place) { return "/proc/self/fd/" + std::to_string(place.get()) + "/admin"; }

wire::Peer self_as(wire::Role role) {
  wire::Peer self;
  self.role = role;
  self.software = std::string("fantail ") + kVersion;
  self.instance = random_id<InstanceId>();
  return self;
}

}  // namespace

Result<std::unique_ptr<AdminServer>> AdminServer::open(const std::filesystem::path& state, Handler handler) {
  std::unique_ptr<AdminServer> server(new AdminServer());
  auto place = open_place(state);
  if (!place) return tl::unexpected(place.error());
  server->place_ = std::move(*place);
  ControlOptions options;
  options.watch_refused_keys = false;  // who only looks whether we are there ends so, too
  auto link = ControlLink::open(server->context_, self_as(wire::Role::kWorker), options);
  if (!link) return tl::unexpected(link.error());
  server->link_ = std::move(*link);
  const mode_t before = ::umask(kOursAlone);
  const auto bound = server->link_->bind({Endpoint::Scheme::kIpc, socket_in(server->place_), {}});
  ::umask(before);
  if (!bound) return tl::unexpected(bound.error());
  server->server_ = std::make_unique<RpcServer>(
      *server->link_,
      [handler = std::move(handler)](const Caller& caller, const wire::Request& request, std::string_view arguments) {
        handler(caller, request.method, arguments);
      },
      kMaxAnswerBytes);
  return server;
}

AdminServer::~AdminServer() = default;

void AdminServer::answer(const Caller& caller, const Result<std::string>& result) {
  if (result) return server_->reply(caller, *result);
  std::string_view type = kOtherType;
  for (const auto& [code, name] : kTypes) {
    if (code == result.error().code) type = name;
  }
  server_->fail(caller, type, result.error().context);
}

std::size_t AdminServer::turn(MonoTime now) { return link_->turn(now, *this) + server_->turn(); }

void AdminServer::on_peer_down(PeerId peer, std::string_view) { server_->on_peer_down(peer); }

void AdminServer::on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) {
  (void)server_->on_control(peer, kind, body, payload);  // nothing else is said here
}

Result<std::unique_ptr<AdminClient>> AdminClient::find(const std::filesystem::path& state) {
  std::unique_ptr<AdminClient> client(new AdminClient());
  auto place = open_place(state);
  if (!place) return tl::unexpected(place.error());
  client->place_ = std::move(*place);
  const std::string path = socket_in(client->place_);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno == ENOENT || errno == ECONNREFUSED) return nullptr;
    return fail_errno(errno, "cannot ask the program that has state directory " + state.string());
  }
  auto connected = RpcClient::connect(client->context_, "ipc://" + path, self_as(wire::Role::kClient),
                                      {.timing = {}, .max_message_bytes = kMaxAnswerBytes});
  if (!connected) return tl::unexpected(connected.error());
  client->client_ = std::move(*connected);
  return client;
}

Result<std::string> AdminClient::ask(std::string_view method, std::string_view arguments, Duration timeout) {
  auto answer = client_->call(method, arguments, {.timeout = timeout});
  if (answer) return std::move(*answer);
  if (answer.error().kind != CallError::Kind::kRemote) {
    return fail(ErrorCode::kIo, "the running program does not answer: " + answer.error().message);
  }
  ErrorCode code = ErrorCode::kIo;
  for (const auto& [known, name] : kTypes) {
    if (name == answer.error().type) code = known;
  }
  return fail(code, answer.error().message);
}

}  // namespace fantail::rpc
