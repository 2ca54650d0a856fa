#pragma once

namespace fantail {

/// Set by the build from the project's version.
extern const char* const kVersion;

}  // namespace fantail
