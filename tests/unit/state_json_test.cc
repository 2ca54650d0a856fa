#include <gtest/gtest.h>

#include "common/json/json.h"
#include "tests/support/seeded.h"

namespace fantail::state {
namespace {

/// Small texts are read by another library than large ones: both must agree on what is JSON and on what it says.
void expect_the_same(const std::string& text) {
  const auto read = parse_json(text);
  const Json reference = Json::parse(text, nullptr, false);
  ASSERT_EQ(read.has_value(), !reference.is_discarded()) << text;
  if (!read) return;
  EXPECT_EQ(to_text(*read), reference.dump()) << text;
  EXPECT_EQ(read->is_number_float(), reference.is_number_float()) << text;
}

TEST(JsonTest, SmallTextsAreReadAsLargeOnesAre) {
  for (const char* text : {"0",
                           "-0",
                           "-0.0",
                           "1",
                           "-1",
                           "1.0",
                           "1e2",
                           "0.1",
                           "1e-400",
                           "1e400",
                           "-1e400",
                           "9223372036854775807",
                           "9223372036854775808",
                           "-9223372036854775808",
                           "-9223372036854775809",
                           "18446744073709551615",
                           "18446744073709551616",
                           "123456789012345678901234567890",
                           "01",
                           "+1",
                           ".5",
                           "5.",
                           "1e",
                           "NaN",
                           "Infinity",
                           "nul",
                           "true",
                           "false",
                           "null",
                           "\"\"",
                           "\"a\\u00e4\\n\\/\"",
                           "\"\\ud83d\\ude00\"",
                           "\"\\ud800\"",
                           "\"\\udc00x\"",
                           "\"\\x\"",
                           "\"\xc3\xa4\"",
                           "\"\xff\"",
                           "\"\xc0\x80\"",
                           "\"\xed\xa0\x80\"",
                           "\"\xf4\x90\x80\x80\"",
                           "\"\t\"",
                           "\"\\u0000\"",
                           "[]",
                           "{}",
                           "[1,]",
                           "[1 2]",
                           "{\"a\":1,\"a\":2}",
                           "{\"b\":1,\"a\":{\"c\":[null,true,{}]}}",
                           "{\"a\"}",
                           "{a:1}",
                           "{'a':1}",
                           "[[[[]]]]",
                           "",
                           " ",
                           " 1 ",
                           "1 2",
                           "// c\n1",
                           "\xef\xbb\xbf"
                           "1"}) {
    expect_the_same(text);
  }
}

TEST(JsonTest, DamagedTextsAreReadAsLargeOnesAre) {
  const std::string whole = R"({"n":[1,-2,3.5e-3,true,null],"t":"x\"\u20ac","o":{"k":""}})";
  for (const std::uint64_t seed : test::seeds(2000)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance chance(seed);
    std::string text = whole;
    for (std::size_t i = chance.between(1, 3); i > 0; --i) {
      const std::size_t at = chance.between(0, text.size() - 1);
      if (chance.with(0.3)) {
        text.erase(at, 1);
      } else {
        text[at] = static_cast<char>(chance.between(0, 255));
      }
    }
    if (!deeper_than(text, kMaxDepth)) expect_the_same(text);
  }
}

}  // namespace
}  // namespace fantail::state
