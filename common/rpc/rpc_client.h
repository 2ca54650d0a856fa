#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/result.h"
#include "common/rpc/call_table.h"
#include "common/transport/control_link.h"
#include "common/transport/spin_policy.h"

namespace fantail::rpc {

/// Makes calls to one peer over one control link. Nothing happens in the background: answers are taken in by turn() or
/// by call(), which waits. One thread. A client that has been left alone for longer than the heartbeat greets again
/// with its next call, by itself; one that waits for answers meanwhile asks first whether the peer is still there.
class RpcClient final : private ControlEvents {
 public:
  /// Does not wait for the peer to be there. `address`: of its control link, "tcp://HOST:PORT" or "ipc://PATH".
  static Result<std::unique_ptr<RpcClient>> connect(Context& context, const std::string& address, wire::Peer self,
                                                    ControlOptions options = {});

  /// Calls and waits for the final answer; partial ones go to `on_partial` as they come.
  CallResult<std::string> call(std::string_view method, std::string_view arguments, CallOptions options = {},
                               CallTable::OnPartial on_partial = {}, std::string type = {});
  /// Calls without waiting; `on_done` is called from turn() exactly once, unless the client is destroyed before.
  void start(CallTable::Call call);

  /// Sends, receives and expires what there is; returns how much. Never waits.
  std::size_t turn(MonoTime now);
  MonoTime due() const;
  std::vector<void*> native_sockets() const { return link_->native_sockets(); }

  /// ControlLink::set_interval().
  void set_interval(Duration interval, MonoTime now) { link_->set_interval(interval, now); }

  bool connected() const { return up_.has_value(); }
  /// For who speaks with it through port(); the same for all connections.
  std::optional<PeerId> peer_id() const { return up_; }
  /// Which connection this is, counted from 1: another one after each time that it was lost.
  std::optional<std::uint64_t> connection() const { return up_ ? std::optional(connections_) : std::nullopt; }
  /// Who answered; of the last time that somebody did.
  const wire::Peer& peer() const { return peer_; }
  const std::string& address() const { return address_; }
  InstanceId instance() const { return instance_; }
  const CallTable& calls() const { return calls_; }
  /// Answers that could not be decoded.
  std::uint64_t rejected() const { return rejected_; }

  /// Messages that are no answers: of streams, for example. Borrowed; nullptr: they are dropped. It hears of the peer
  /// coming and going, too.
  void pass_other_messages_to(ControlEvents* other) { other_ = other; }
  ControlPort& port() { return *link_; }

  using OnEvent = std::function<void(std::string_view channel, std::string_view content)>;
  void on_event(OnEvent handler) { on_event_ = std::move(handler); }

 private:
  RpcClient() = default;
  void on_peer_up(PeerId peer, const wire::Peer& who) override;
  void on_peer_down(PeerId peer, std::string_view reason) override;
  void on_control(PeerId peer, wire::Kind kind, std::span<const std::byte> body, Frame payload) override;
  bool send_waiting();

  std::string address_;
  InstanceId instance_;
  std::unique_ptr<ControlLink> link_;
  std::optional<PeerId> up_;
  std::uint64_t connections_ = 0;
  wire::Peer peer_;
  CallTable calls_;
  wire::Encoder encoder_;
  ControlEvents* other_ = nullptr;
  OnEvent on_event_;
  std::uint64_t rejected_ = 0;
  MonoTime last_turn_ = mono_now();
  SpinPolicy spin_;
};

}  // namespace fantail::rpc
