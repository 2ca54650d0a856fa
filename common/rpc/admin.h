#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/unique_fd.h"
#include "common/rpc/rpc_client.h"
#include "common/rpc/rpc_server.h"

/// How commands on the same host reach a running program: over the socket `admin` in its state directory, which only
/// its user may open.
namespace fantail::rpc {

/// The running program's side. One thread.
class AdminServer final : private ControlEvents {
 public:
  /// Answers at once or later, with answer().
  using Handler = std::function<void(const Caller& caller, const std::string& method, std::string_view arguments)>;
  /// `state`: locked by this program, so that nobody else listens there.
  static Result<std::unique_ptr<AdminServer>> open(const std::filesystem::path& state, Handler handler);
  ~AdminServer() override;

  /// At most kMaxAnswerBytes.
  void answer(const Caller& caller, const Result<std::string>& result);
  std::size_t turn(MonoTime now);
  MonoTime due() const { return link_->due(); }
  std::vector<void*> native_sockets() const { return link_->native_sockets(); }

 private:
  AdminServer() = default;
  void on_peer_up(PeerId, const wire::Peer&) override {}
  void on_peer_down(PeerId peer, std::string_view reason) override;
  void on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) override;

  UniqueFd place_;   ///< the state directory, however long its name is
  Context context_;  ///< of its own: the program's may be protected by a key
  std::unique_ptr<ControlLink> link_;
  std::unique_ptr<RpcServer> server_;
};

inline constexpr std::size_t kMaxAnswerBytes = 16 * 1024 * 1024;

/// The command's side. One thread.
class AdminClient {
 public:
  /// A null pointer: no program that could be asked has this state directory.
  static Result<std::unique_ptr<AdminClient>> find(const std::filesystem::path& state);
  /// The code of an error is the one that the program gave.
  Result<std::string> ask(std::string_view method, std::string_view arguments, Duration timeout = 10s);

 private:
  AdminClient() = default;
  UniqueFd place_;
  Context context_;
  std::unique_ptr<RpcClient> client_;
};

}  // namespace fantail::rpc
