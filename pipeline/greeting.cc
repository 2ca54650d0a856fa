#include "pipeline/greeting.h"

#include <utility>

#include "common/base/version.h"

namespace fantail::pipeline {

wire::Peer self_as(wire::Role role, std::string name) {
  wire::Peer self;
  self.role = role;
  self.software = std::string("fantail ") + kVersion;
  self.instance = random_id<InstanceId>();
  self.name = std::move(name);
  return self;
}

}  // namespace fantail::pipeline
