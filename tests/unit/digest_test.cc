#include "common/base/digest.h"

#include <gmock/gmock.h>

#include <string>

namespace fantail {
namespace {

std::string pattern(std::size_t bytes) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(i % 251);
  return text;
}

struct Vector {
  std::size_t bytes;
  std::uint64_t expected;
};

// Lengths on both sides of every change of algorithm inside XXH3; values from libxxhash through Python's ctypes.
constexpr Vector kVectors[] = {
    {0, 0x2d06800538d394c2},    {1, 0xc44bdff4074eecdb},    {3, 0x5f4299fc161c9cbb},      {4, 0x60dab036a58211f2},
    {8, 0x3a1c2d7c85af88f8},    {9, 0xe9612598145bb9dc},    {16, 0x8355e3a6f61770db},     {17, 0x9ef341a99de37328},
    {128, 0x85c6174c7ff4c46b},  {129, 0xec7642b431ba3e5a},  {240, 0x375a384d957fe865},    {241, 0x02e8cd95421c6d02},
    {1024, 0xe5d78bafa45b2aa5}, {1025, 0xe95c42288f28186e}, {262144, 0x19e33139f5534930},
};

TEST(DigestTest, IsXxh3WithoutSeed) {
  for (const Vector v : kVectors) EXPECT_EQ(digest(as_bytes(pattern(v.bytes))), v.expected) << v.bytes << " bytes";
  EXPECT_EQ(digest(as_bytes("fantail")), 0xb22834e2a065e391u);
}

TEST(DigestTest, OfPartsIsTheDigestOfTheWhole) {
  for (const Vector v : kVectors) {
    const std::string text = pattern(v.bytes);
    const std::string_view all = text;
    for (const std::size_t cut : {std::size_t{0}, v.bytes / 3, v.bytes / 2, v.bytes}) {
      EXPECT_EQ(digest({as_bytes(all.substr(0, cut)), {}, as_bytes(all.substr(cut))}), v.expected)
          << v.bytes << " bytes cut at " << cut;
    }
  }
}

TEST(DigestTest, OfNothingIsTheSameHoweverItIsSaid) {
  EXPECT_EQ(digest(std::span<const std::byte>{}), digest(as_bytes("")));
  EXPECT_EQ(digest({{}, {}}), digest(as_bytes("")));
}

TEST(DigestTest, DependsOnTheAddressOfNothing) {
  const std::string text = pattern(1000);
  for (std::size_t shift = 0; shift < 16; ++shift) {
    const std::string moved = std::string(shift, 'x') + text;
    EXPECT_EQ(digest(as_bytes(std::string_view(moved).substr(shift))), digest(as_bytes(text)));
  }
}

TEST(DigestTest, TextAndBytesAreTheSameMemory) {
  const std::string_view text = "web/access";
  EXPECT_EQ(as_text(as_bytes(text)).data(), text.data());
  EXPECT_EQ(as_text(as_bytes(text)), text);
}

}  // namespace
}  // namespace fantail
