#include "common/base/result.h"

#include <cerrno>
#include <system_error>

namespace fantail {

tl::unexpected<Error> fail_errno(int error_number, const std::string& what) {
  ErrorCode code = ErrorCode::kIo;
  switch (error_number) {
    case ENOSPC:
    case EDQUOT: code = ErrorCode::kNoSpace; break;
    case ENOENT: code = ErrorCode::kNotFound; break;
    case EAGAIN: code = ErrorCode::kWouldBlock; break;
    case EBUSY: code = ErrorCode::kBusy; break;
    default: break;
  }
  return fail(code, what + ": " + std::generic_category().message(error_number));
}

}  // namespace fantail
