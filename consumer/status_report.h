#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/rpc/admin.h"
#include "consumer/cursor_store.h"

namespace fantail {

/// What a consumer has, of its store and, while it runs, of itself.
struct ConsumerReport {
  nlohmann::json summary;               ///< `type`: "summary"
  std::vector<nlohmann::json> streams;  ///< `type`: "stream"; in no order
};
/// `running`: null where it does not run.
Result<ConsumerReport> consumer_report(CursorStore& store, rpc::AdminClient* running);

/// `type`: "loss"; in the order in which they were recorded.
nlohmann::json loss_report(const CursorStore::LossRow& loss);

/// The summary as Prometheus text, and for people.
std::string consumer_metrics(const nlohmann::json& summary);
std::string consumer_text(const nlohmann::json& summary);

}  // namespace fantail
