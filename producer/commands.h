#pragma once

#include <vector>

#include "common/base/program.h"

namespace fantail::producer {

/// What fantail-producer does when its first argument is the name of one of these: status, forget, rewind.
const std::vector<Command>& commands();

}  // namespace fantail::producer
