#pragma once

#include <cstdint>
#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace fantail {

/// What a caller may branch on; the sentence in Error::context is for people.
enum class ErrorCode : std::uint8_t {
  kInvalid,      ///< the caller's input cannot be used: a flag, an address, a pattern
  kTruncated,    ///< fewer bytes than the format needs
  kCorrupt,      ///< bytes that contradict their digest, schema or limits
  kUnsupported,  ///< well-formed, but from a protocol or schema version we do not speak
  kWouldBlock,   ///< nothing now; ask again when the descriptor is ready
  kNotFound,     ///< the named thing does not exist
  kReplaced,     ///< the file is there, but it is not the stream's file any more
  kBusy,         ///< in use by another process
  kNoSpace,      ///< disk or quota full; waits for the operator
  kIo,           ///< any other failure of the world
};

struct Error {
  ErrorCode code = ErrorCode::kIo;
  std::string context;  ///< object, position, cause, and the remedy where there is one
};

/// A value, or why there is none. g++ 12 in C++20 mode has no std::expected.
template <class T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

inline tl::unexpected<Error> fail(ErrorCode code, std::string context) {
  return tl::unexpected<Error>(Error{code, std::move(context)});
}

/// `what` followed by the text of errno value `error_number`. Maps ENOSPC/EDQUOT, ENOENT, EAGAIN and EBUSY to
/// their own codes, everything else to kIo.
tl::unexpected<Error> fail_errno(int error_number, const std::string& what);
inline Error error_of_errno(int error_number, const std::string& what) {
  return fail_errno(error_number, what).value();
}

}  // namespace fantail
