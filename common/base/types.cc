#include "common/base/types.h"

#include <sys/random.h>

#include <cstdlib>

namespace fantail::detail {

std::array<std::uint64_t, 2> random_words() {
  std::array<std::uint64_t, 2> words{};
  while (words[0] == 0 || words[1] == 0) {
    // At most 256 bytes never return short or fail with EINTR, see getrandom(2).
    if (::getrandom(words.data(), sizeof(words), 0) != static_cast<ssize_t>(sizeof(words))) std::abort();
  }
  return words;
}

std::string to_hex(std::uint64_t hi, std::uint64_t lo) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text(32, '0');
  for (std::size_t i = 0; i < 16; ++i) {
    text[15 - i] = kDigits[(hi >> (4 * i)) & 0xF];
    text[31 - i] = kDigits[(lo >> (4 * i)) & 0xF];
  }
  return text;
}

std::optional<std::array<std::uint64_t, 2>> words_from_hex(std::string_view hex) {
  if (hex.size() != 32) return std::nullopt;
  std::array<std::uint64_t, 2> words{};
  for (std::size_t i = 0; i < 32; ++i) {
    const char c = hex[i];
    std::uint64_t digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<std::uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<std::uint64_t>(c - 'a' + 10);
    } else if (c >= 'A' && c <= 'F') {
      digit = static_cast<std::uint64_t>(c - 'A' + 10);
    } else {
      return std::nullopt;
    }
    auto& word = words[i / 16];
    word = (word << 4) | digit;
  }
  return words;
}

}  // namespace fantail::detail
