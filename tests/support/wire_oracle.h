#pragma once

#include <cstddef>
#include <span>

#include "common/wire/messages.h"

namespace fantail::test {

/// Gives a body of unknown origin to the decoder of its kind and checks what decoders promise: a value that comes out
/// is within every limit, and encoding it gives a message that decodes to the same value; a payload is undone to
/// exactly the length announced or not at all. Aborts when a promise is broken. Returns whether there was a value.
bool decode_and_check(wire::Kind kind, std::span<const std::byte> body, std::span<const std::byte> payload);

}  // namespace fantail::test
