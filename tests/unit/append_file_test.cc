#include "common/storage/append_file.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "tests/support/scratch_directory.h"

namespace fantail {
namespace {

using testing::ElementsAre;

class AppendFileTest : public testing::Test {
 protected:
  std::vector<std::string> lines_of(const AppendFile& file, std::uint64_t& upto) {
    std::vector<std::string> out;
    upto = *file.for_each_line([&](std::string_view line, std::uint64_t offset) {
      out.push_back(std::to_string(offset) + ":" + std::string(line));
      return true;
    });
    return out;
  }
  test::ScratchDirectory directory;
  std::filesystem::path path = directory.path() / "file";
};

TEST_F(AppendFileTest, WhatWasAppendedIsReadBackAndAnUnfinishedEndIsNotALine) {
  {
    auto file = AppendFile::create(path);
    ASSERT_TRUE(file);
    ASSERT_TRUE(file->append("one\n\nthree\nunfin"));
    EXPECT_EQ(file->length(), 16U);
  }
  auto file = AppendFile::open(path);
  ASSERT_TRUE(file);
  std::uint64_t upto = 0;
  EXPECT_THAT(lines_of(*file, upto), ElementsAre("0:one", "4:", "5:three"));
  EXPECT_EQ(upto, 11U);
  ASSERT_TRUE(file->cut_to(upto));
  ASSERT_TRUE(file->append("four\n"));
  EXPECT_THAT(lines_of(*file, upto), ElementsAre("0:one", "4:", "5:three", "11:four"));
}

TEST_F(AppendFileTest, LinesMayBeLongerThanOneRead) {
  auto file = AppendFile::create(path);
  ASSERT_TRUE(file);
  const std::string longest(3'000'000, 'x');
  ASSERT_TRUE(file->append(longest + "\nshort\n"));
  std::uint64_t upto = 0;
  const auto lines = lines_of(*file, upto);
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0], "0:" + longest);
  EXPECT_EQ(upto, 3'000'007U);
}

TEST_F(AppendFileTest, AFullDiskIsToldAndNothingCounts) {
  std::filesystem::create_symlink("/dev/full", path);
  auto file = AppendFile::open(path);
  ASSERT_TRUE(file);
  const auto ok = file->append("x\n");
  ASSERT_FALSE(ok);
  EXPECT_EQ(ok.error().code, ErrorCode::kNoSpace);
  EXPECT_EQ(file->length(), 0U);
}

}  // namespace
}  // namespace fantail
