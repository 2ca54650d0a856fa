#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "state/transaction.h"

namespace fantail::state {

using OpResult = tl::expected<std::string, OpError>;

/// What an operation may look at besides its transaction.
struct OpContext {
  const StoreLimits& limits;
  const std::map<SessionId, std::uint32_t>& sessions;  ///< open ones, with their leases in ms
  WallTime now;
  std::uint64_t revision;     ///< of the store
  std::uint64_t last_change;  ///< revision of the namespace's last change
};

/// One operation on one namespace: reads its arguments, edits `transaction`, returns the JSON text of its result.
/// Knows no journal and no revision of its own.
using Operation = OpResult (*)(Transaction& transaction, const nlohmann::json& arguments, const OpContext& context);

/// nullptr: there is none of this name.
Operation operation_of(std::string_view name);

inline tl::unexpected<OpError> refuse(std::string type, std::string message) {
  return tl::unexpected(OpError{std::move(type), std::move(message)});
}

}  // namespace fantail::state
