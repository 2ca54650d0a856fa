#include "common/storage/small_file.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "tests/support/scratch_directory.h"

namespace fantail {
namespace {

class SmallFileTest : public testing::Test {
 protected:
  test::ScratchDirectory scratch;
  const std::string path = scratch / "node";
};

TEST_F(SmallFileTest, WhatIsReadIsWhatWasPutThereLast) {
  ASSERT_TRUE(replace_small_file(path, "a longer one\n"));
  ASSERT_TRUE(replace_small_file(path, "b\n"));
  EXPECT_EQ(read_small_file(path).value(), "b\n");
}

TEST_F(SmallFileTest, AMissingOneIsNotFound) { EXPECT_EQ(read_small_file(path).error().code, ErrorCode::kNotFound); }

TEST_F(SmallFileTest, WhoHasTheOldOneOpenSeesNothingOfTheNew) {
  ASSERT_TRUE(replace_small_file(path, "old"));
  const UniqueFd old(::open(path.c_str(), O_RDONLY));
  ASSERT_TRUE(replace_small_file(path, "new"));
  std::string seen(3, '\0');
  ASSERT_EQ(::read(old.get(), seen.data(), seen.size()), 3);
  EXPECT_EQ(seen, "old");
}

TEST_F(SmallFileTest, WhenItCannotBeReplacedTheOldOneStays) {
  ASSERT_TRUE(replace_small_file(path, "old"));
  std::filesystem::create_directory(path + ".new");
  EXPECT_FALSE(replace_small_file(path, "new"));
  EXPECT_EQ(read_small_file(path).value(), "old");
}

TEST_F(SmallFileTest, AHalfWrittenOneOfACrashIsNoObstacle) {
  test::rewrite(path + ".new", "ha");
  ASSERT_TRUE(replace_small_file(path, "new"));
  EXPECT_EQ(read_small_file(path).value(), "new");
  EXPECT_FALSE(std::filesystem::exists(path + ".new"));
}

TEST_F(SmallFileTest, OnlyTheBeginningOfAHugeOneIsRead) {
  test::rewrite(path, std::string(100'000, 'x'));
  EXPECT_EQ(read_small_file(path)->size(), kMaxSmallFileBytes);
}

TEST_F(SmallFileTest, WhatCouldNotBeReadBackIsNotWritten) {
  ASSERT_TRUE(replace_small_file(path, std::string(kMaxSmallFileBytes, 'x')));
  EXPECT_EQ(read_small_file(path)->size(), kMaxSmallFileBytes);
  EXPECT_FALSE(replace_small_file(path, std::string(kMaxSmallFileBytes + 1, 'y')));
  EXPECT_EQ(read_small_file(path)->front(), 'x');
}

}  // namespace
}  // namespace fantail
