#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/base/log.h"
#include "common/base/signals.h"
#include "common/rpc/worker_host.h"
#include "common/transport/context.h"

namespace fantail::pipeline {

struct ServiceConfig {
  std::string endpoint = "tcp://127.0.0.1:5570";
  std::string key_file{};
  log::Level log_level = log::Level::kInfo;
  std::vector<std::string> problems() const;
};

/// A router of requests at one well-known address: clients and workers come to it, each request goes to a worker of its
/// type, the answers go back. One thread.
class Service {
 public:
  static Result<std::unique_ptr<Service>> open(ServiceConfig config);
  /// Until it is told to stop. The exit code.
  int run(StopSignals& signals);
  std::size_t turn(MonoTime now);
  const std::string& address() const { return host_->address(); }

 private:
  explicit Service(ServiceConfig config) : config_(std::move(config)) {}
  void on_request(const rpc::Caller& caller, const wire::Request& request, std::string_view arguments);
  void on_gone(const rpc::Caller& caller);
  void on_event(PeerId worker, const wire::Event& event, std::string_view content);

  ServiceConfig config_;
  Context context_;
  std::unique_ptr<rpc::WorkerHost> host_;
  std::map<rpc::Caller, std::uint64_t> calls_;  ///< their numbers in the pool
  std::set<rpc::Caller> listeners_;
  std::vector<rpc::Caller> too_slow_;  ///< failed for that; their workers need not go on
  std::uint64_t answered_ = 0;
  std::uint64_t failed_ = 0;
};

}  // namespace fantail::pipeline
