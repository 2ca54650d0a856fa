#include "consumer/text_encoding.h"

#include <gmock/gmock.h>
#include <iconv.h>

#include <cerrno>

#include "common/base/text.h"
#include "tests/support/seeded.h"

namespace fantail {
namespace {

struct Decoded {
  std::string text;
  std::size_t replaced = 0;
  bool operator==(const Decoded&) const = default;
};

void PrintTo(const Decoded& d, std::ostream* out) { *out << testing::PrintToString(d.text) << ", " << d.replaced; }

Decoded decoded(TextEncoding encoding, std::string_view bytes) {
  Decoded out;
  out.replaced = append_utf8(out.text, encoding, bytes);
  return out;
}

/// The same by the C library; nothing when it refuses the bytes.
std::optional<std::string> by_iconv(const char* from, std::string bytes) {
  const iconv_t converter = ::iconv_open("UTF-8", from);
  std::string out(bytes.size() * 4 + 4, '\0');
  char* in_at = bytes.data();
  char* out_at = out.data();
  std::size_t in_left = bytes.size();
  std::size_t out_left = out.size();
  const bool ok = ::iconv(converter, &in_at, &in_left, &out_at, &out_left) != static_cast<std::size_t>(-1);
  ::iconv_close(converter);
  out.resize(out.size() - out_left);
  return ok ? std::optional(out) : std::nullopt;
}

TEST(TextEncodingTest, DecodesAsTheLibraryDoes) {
  struct Case {
    TextEncoding encoding;
    const char* name;
  };
  for (const std::uint64_t seed : test::seeds(500)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance chance(seed);
    for (const Case& c : {Case{TextEncoding::kUtf8, "UTF-8"}, Case{TextEncoding::kUtf16Le, "UTF-16LE"},
                          Case{TextEncoding::kUtf16Be, "UTF-16BE"}, Case{TextEncoding::kLatin1, "ISO-8859-1"}}) {
      std::string bytes(chance.between(std::size_t{0}, std::size_t{12}), '\0');
      // Surrogates and the leads of UTF-8 more often than by chance.
      std::string likely("\xD8\xDC\xDF\xE2\x82\xAC\xF0\x9F\xED\xA0 a", 12);
      for (char& byte : bytes) {
        byte = chance.with(0.7) ? chance.one_of(likely)
                                : static_cast<char>(chance.between(std::size_t{0}, std::size_t{255}));
      }
      const Decoded ours = decoded(c.encoding, bytes);
      const auto theirs = by_iconv(c.name, bytes);
      EXPECT_TRUE(is_utf8(ours.text));
      EXPECT_EQ(theirs.has_value(), ours.replaced == 0) << c.name << ' ' << testing::PrintToString(bytes);
      EXPECT_EQ(ours.text, theirs.value_or(ours.text));
    }
  }
}

TEST(TextEncodingTest, WhatIsNoTextIsReplacedAndCounted) {
  using namespace std::string_literals;
  const auto utf16 = [](const std::string& bytes) { return decoded(TextEncoding::kUtf16Le, bytes); };
  EXPECT_EQ(utf16("\x3D\xD8\x00\xDE"s), (Decoded{"\U0001F600", 0}));
  EXPECT_EQ(utf16("a\0\x3D\xD8"s), (Decoded{"a\uFFFD", 1})) << "half of a pair at the end";
  EXPECT_EQ(utf16("\x3D\xD8z\0"s), (Decoded{"\uFFFDz", 1})) << "and what follows it stays";
  EXPECT_EQ(utf16("\x00\xDE\x3D\xD8"s), (Decoded{"\uFFFD\uFFFD", 2})) << "in the wrong order";
  EXPECT_EQ(utf16("a\0b"s), (Decoded{"a\uFFFD", 1})) << "half of a unit";
  const auto utf8 = [](const std::string& bytes) { return decoded(TextEncoding::kUtf8, bytes); };
  EXPECT_EQ(utf8("a\xFF\xFE!"), (Decoded{"a\uFFFD\uFFFD!", 2}));
  EXPECT_EQ(utf8("\xF0\x9F\x98!\xE2\x82"), (Decoded{"\uFFFD!\uFFFD", 2})) << "one for the beginning of a character";
  EXPECT_EQ(utf8("\xED\xA0\x80"), (Decoded{"\uFFFD\uFFFD\uFFFD", 3})) << "a surrogate is none";
  EXPECT_EQ(utf8("\xC0\x80"), (Decoded{"\uFFFD\uFFFD", 2})) << "overlong";
  EXPECT_EQ(decoded(TextEncoding::kPlain, "\xFF"), (Decoded{"\xFF", 0}));
}

TEST(TextTest, APrefixEndsWithACharacter) {
  EXPECT_EQ(utf8_prefix("abc", 3), "abc");
  EXPECT_EQ(utf8_prefix("abc", 2), "ab");
  EXPECT_EQ(utf8_prefix("a\u00e4b", 3), "a\u00e4");
  EXPECT_EQ(utf8_prefix("a\u00e4b", 2), "a");
  EXPECT_EQ(utf8_prefix("\U0001F600", 3), "");
}

TEST(TextEncodingTest, ABeginningEndsWithACharacter) {
  EXPECT_EQ(whole_characters(TextEncoding::kUtf8, "ab\U0001F600", 5), 2);
  EXPECT_EQ(whole_characters(TextEncoding::kUtf8, "ab\U0001F600", 6), 6);
  EXPECT_EQ(whole_characters(TextEncoding::kUtf8, "\x80\x80\x80\x80\x80\x80", 4), 4) << "no text: anywhere";
  EXPECT_EQ(whole_characters(TextEncoding::kUtf16Le, std::string_view("a\0\x3D\xD8\x00\xDE", 6), 5), 2);
  EXPECT_EQ(whole_characters(TextEncoding::kUtf16Be, std::string_view("\0a\0b\0c", 6), 5), 4);
  EXPECT_EQ(whole_characters(TextEncoding::kPlain, "ab\U0001F600", 5), 5);
}

}  // namespace
}  // namespace fantail
