#include "common/stream/stream_name.h"

#include <gmock/gmock.h>

namespace fantail {
namespace {

using testing::HasSubstr;

const NamedStream kLive{{0x1234567800000000, 1}, "/log/app.log", "/log/app.log"};
const NamedStream kRotated{{0x1234567800000000, 2}, "/log/app.log", "/log/app.log.1"};
const NamedStream kOther{{0xabcdef0100000000, 3}, "/log/other.log", "/elsewhere/other.log"};

Result<StreamId> find(std::string_view name) { return find_by_name(name, {kLive, kRotated, kOther}); }

TEST(StreamNameTest, AWholeIdIsItsStream) { EXPECT_EQ(find(to_string(kRotated.stream)), kRotated.stream); }

TEST(StreamNameTest, EightDigitsAreEnoughWhenNoOtherBeginsSo) {
  EXPECT_EQ(find("abcdef01"), kOther.stream);
  EXPECT_EQ(find("abcdef0").error().code, ErrorCode::kNotFound);
}

TEST(StreamNameTest, WhereAFileIsCountsBeforeTheNameThatItHad) {
  EXPECT_EQ(find("/log/app.log"), kLive.stream);
  EXPECT_EQ(find("/log/app.log.1"), kRotated.stream);
  EXPECT_EQ(find("/log/other.log"), kOther.stream);
  EXPECT_EQ(find("/elsewhere/other.log"), kOther.stream);
}

TEST(StreamNameTest, OfSeveralAllAreListed) {
  const auto found = find("12345678");
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(found.error().context, HasSubstr(to_string(kLive.stream)));
  EXPECT_THAT(found.error().context, HasSubstr(to_string(kRotated.stream) + "  /log/app.log.1"));
  EXPECT_THAT(found.error().context, Not(HasSubstr(to_string(kOther.stream))));
}

TEST(StreamNameTest, AnUnknownNameTellsOfThoseThatContainIt) {
  const auto found = find("other");
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(found.error().context, HasSubstr(to_string(kOther.stream)));
  EXPECT_EQ(find("").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace fantail
