#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/result.h"
#include "common/rpc/rpc_server.h"
#include "common/rpc/worker_pool.h"
#include "common/transport/control_link.h"
#include "common/transport/endpoint.h"
#include "common/transport/spin_policy.h"

namespace fantail::rpc {

/// Where workers come to: a bound address with a WorkerPool behind it. Calls go to whoever is there; other requests, of
/// clients, go to a handler. One thread.
class WorkerHost final : private ControlEvents {
 public:
  static Result<std::unique_ptr<WorkerHost>> open(Context& context, const Endpoint& endpoint, wire::Peer self,
                                                  ControlOptions options = {});

  /// Calls and waits for the final answer; partial ones go to `on_partial` as they come. See WorkerPool::start().
  CallResult<std::string> call(std::string type, std::string_view method, std::string_view arguments,
                               CallOptions options = {}, CallTable::OnPartial on_partial = {});
  /// Whether one came within `timeout`.
  bool wait_for_worker(std::string_view type, Duration timeout);

  WorkerPool& pool() { return pool_; }
  RpcServer& server() { return *server_; }
  const std::string& address() const { return address_; }  ///< the one really bound

  /// Requests of clients; without a handler they fail.
  void on_request(RpcServer::Handler handler) { on_request_ = std::move(handler); }
  void on_gone(RpcServer::OnGone handler) { server_->on_gone(std::move(handler)); }
  /// What happens, for logs of one's own. May be empty.
  struct Hooks {
    std::function<void(const WorkerInfo&)> on_ready;
    std::function<void(std::string_view peer, std::string_view reason)> on_lost;
  };
  void hooks(Hooks hooks) { hooks_ = std::move(hooks); }

  std::size_t turn(MonoTime now);
  /// Sleeps until there is something to do, at most until `until`; `also`: a descriptor that ends it, too.
  void wait(MonoTime now, MonoTime until, int also = -1);
  /// Before the end: what was answered has arrived.
  void flush(Duration limit) { link_->flush(limit, *this); }

 private:
  WorkerHost(std::unique_ptr<ControlLink> link);
  void on_peer_up(PeerId peer, const wire::Peer& who) override;
  void on_peer_down(PeerId peer, std::string_view reason) override;
  void on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) override;
  void handle(const Caller& caller, const wire::Request& request, std::string_view arguments);

  std::unique_ptr<ControlLink> link_;
  std::unique_ptr<RpcServer> server_;
  WorkerPool pool_;
  RpcServer::Handler on_request_;
  Hooks hooks_;
  std::string address_;
  std::map<PeerId, std::string> names_;
  SpinPolicy spin_;
};

}  // namespace fantail::rpc
