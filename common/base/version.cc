#include "common/base/version.h"

namespace fantail {

const char* const kVersion = FANTAIL_VERSION;

}  // namespace fantail
