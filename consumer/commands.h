#pragma once

#include <vector>

#include "common/base/program.h"

namespace fantail::consumer {

/// What fantail-consumer does when its first argument is the name of one of these: status, losses, rewind.
const std::vector<Command>& commands();

}  // namespace fantail::consumer
