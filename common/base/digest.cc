#include "common/base/digest.h"

#define XXH_INLINE_ALL  // no call overhead for the many small inputs
#include <xxhash.h>

namespace fantail {

std::uint64_t digest(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

std::uint64_t digest(std::initializer_list<std::span<const std::byte>> parts) {
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  for (const auto part : parts) XXH3_64bits_update(&state, part.data(), part.size());
  return XXH3_64bits_digest(&state);
}

}  // namespace fantail
