#pragma once

#include <sys/types.h>

#include <vector>

#include "common/base/clock.h"

namespace fantail::state {

/// All processes below `root`, children before their children; those that end meanwhile may be among them.
std::vector<pid_t> descendants(pid_t root);

/// Makes this process the parent of every descendant whose own parent ends (prctl(2), PR_SET_CHILD_SUBREAPER), so that
/// none gets out of sight.
void adopt_orphans();

/// Kills `root` and all below it, at once.
void kill_tree(pid_t root);

/// Ends every descendant of this process: SIGTERM, and SIGKILL for those that are left after `grace`. Takes in the
/// exit of children that it ends, and returns when none is left.
void end_descendants(Duration grace);

}  // namespace fantail::state
