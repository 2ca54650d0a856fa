#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/transport/broadcast.h"
#include "common/transport/relay_process.h"

namespace fantail {

struct EpgmConfig {
  std::string address;                      ///< as made by epgm_address
  std::uint64_t rate_kbit_per_s = 300'000;  ///< PGM's own limiter; above our pacing, so that ours decides
  Duration send_window = 100ms;             ///< how long the publisher can repair by PGM; costs rate x time of memory
  Duration receive_window = 20ms;           ///< how long a receiver waits for PGM's repair before the hole becomes ours
  int send_tpdu = 1500;                     ///< bytes of one packet; at most what the interface takes in one piece
  int receive_tpdu = 9000;                  ///< room for any publisher's packets; less than one sends means silence
};

/// Multicast PUB: hands messages to a relay process over ipc. Knows nothing of who listens. One thread.
class EpgmPublisher final : public BroadcastPort {
 public:
  static Result<std::unique_ptr<EpgmPublisher>> open(Context& context, const EpgmConfig& config, int queue_messages);
  ~EpgmPublisher() override;

  Outcome send(BroadcastMessage& message, WhenFull when_full) override;
  bool wanted(std::string_view) const override { return true; }
  RelayProcess& relay();
  int mailbox_fd() const;  ///< readable when a blocked send may go on

 private:
  struct Impl;
  explicit EpgmPublisher(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Multicast SUB: gets messages from a relay process over ipc. One thread.
class EpgmSubscriber final : public BroadcastInlet {
 public:
  static Result<std::unique_ptr<EpgmSubscriber>> open(Context& context, const EpgmConfig& config, int queue_messages,
                                                      const std::vector<std::string>& subscriptions);
  ~EpgmSubscriber() override;

  bool receive(BroadcastMessage& message) override;
  RelayProcess& relay();
  void* native_socket() const;

 private:
  struct Impl;
  explicit EpgmSubscriber(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fantail
