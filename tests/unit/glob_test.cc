#include "producer/glob.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "tests/support/scratch_directory.h"

namespace fantail {
namespace {

struct Row {
  const char* pattern;
  const char* path;
  bool matches;
};

class GlobTableTest : public testing::TestWithParam<Row> {};

TEST_P(GlobTableTest, Matches) {
  const auto glob = Glob::parse(GetParam().pattern);
  ASSERT_TRUE(glob) << glob.error().context;
  EXPECT_EQ(glob->matches(GetParam().path), GetParam().matches)
      << GetParam().pattern << (GetParam().matches ? " takes " : " does not take ") << GetParam().path;
}

INSTANTIATE_TEST_SUITE_P(
    All, GlobTableTest,
    testing::Values(Row{"/v/a.log", "/v/a.log", true}, Row{"/v/a.log", "/v/a_log", false},
                    Row{"/v/*.log", "/v/a.log", true}, Row{"/v/*.log", "/v/.log", false},
                    Row{"/v/*.log", "/v/.hidden.log", false}, Row{"/v/.*.log", "/v/.hidden.log", true},
                    Row{"/v/*.log", "/v/sub/a.log", false}, Row{"/v/*/a.log", "/v/sub/a.log", true},
                    Row{"/v/*/a.log", "/v/a.log", false}, Row{"/v/?.log", "/v/a.log", true},
                    Row{"/v/?.log", "/v/ab.log", false}, Row{"/v/[a-c].log", "/v/b.log", true},
                    Row{"/v/[a-c].log", "/v/d.log", false}, Row{"/v/[!a-c].log", "/v/d.log", true},
                    Row{"/v/[!a-c].log", "/v/a.log", false}, Row{"/v/[]x].log", "/v/].log", true},
                    Row{"/v/{a,b}.log", "/v/b.log", true}, Row{"/v/{a,b}.log", "/v/c.log", false},
                    Row{"/v/{a{1,2},b}.log", "/v/a2.log", true}, Row{"/{v,w}/x", "/w/x", true},
                    Row{"/v/**/a.log", "/v/a.log", true}, Row{"/v/**/a.log", "/v/1/2/3/a.log", true},
                    Row{"/v/**/a.log", "/v/.git/a.log", false}, Row{"/v/**", "/v/1/2/x", true},
                    Row{"/v/**", "/w/x", false}, Row{"/v/**/b/*.log", "/v/b/c/b/x.log", true},
                    Row{"/v/a+b(1).log", "/v/a+b(1).log", true}, Row{"/v/a+b.log", "/v/aab.log", false},
                    Row{"/v/\\*.log", "/v/*.log", true}, Row{"/v/\\*.log", "/v/a.log", false},
                    Row{"/v/*.log", "/v/\xFF\xFE.log", true}, Row{"/v/x/../*.log", "/v/a.log", true},
                    Row{"/v/a.log*", "/v/a.log", true}, Row{"/v/a.log*", "/v/a.log.1.gz", true},
                    Row{"/v/*", "/v/new\nline", true}));

TEST(GlobTest, SaysWhatIsWrong) {
  for (const char* pattern : {"", "/v/{a,b", "/v/[a", "/v/[z-a]"}) {
    const auto glob = Glob::parse(pattern);
    ASSERT_FALSE(glob) << pattern;
    EXPECT_EQ(glob.error().code, ErrorCode::kInvalid);
    EXPECT_THAT(glob.error().context, testing::HasSubstr("'" + std::string(pattern) + "'"));
  }
}

TEST(GlobTest, TooManyAlternativesAreRefusedAndNotExpanded) {
  std::string pattern = "/v/";
  for (int i = 0; i < 30; ++i) pattern += "{a,b}";
  EXPECT_FALSE(Glob::parse(pattern));
}

TEST(GlobTest, RelativePatternsAreOfTheWorkingDirectory) {
  const auto glob = Glob::parse("*.log");
  ASSERT_TRUE(glob);
  EXPECT_TRUE(glob->matches((std::filesystem::current_path() / "a.log").string()));
}

TEST(GlobTest, ADirectoryTakesEveryFileBelowIt) {
  const test::ScratchDirectory directory;
  const auto glob = Glob::parse(directory.path().string());
  ASSERT_TRUE(glob);
  EXPECT_TRUE(glob->matches(directory / "a"));
  EXPECT_TRUE(glob->matches(directory / "b/c"));
}

TEST(GlobTest, WhatIsNotThereYetMayComeAsAFileOrAsADirectory) {
  const test::ScratchDirectory directory;
  for (const char* end : {"later", "later/"}) {
    const auto glob = Glob::parse(directory / end);
    ASSERT_TRUE(glob);
    EXPECT_TRUE(glob->matches(directory / "later"));
    EXPECT_TRUE(glob->matches(directory / "later/b/c"));
    EXPECT_FALSE(glob->matches(directory / "late"));
    EXPECT_FALSE(glob->matches(directory / "later2/c"));
  }
}

TEST(GlobTest, KnowsWhereToLook) {
  const auto glob = Glob::parse("/v/{a,b}/*/x.log");
  ASSERT_TRUE(glob);
  EXPECT_THAT(glob->roots(), testing::UnorderedElementsAre("/v/a", "/v/b"));
  EXPECT_FALSE(glob->places_of("/v/a").empty());
  EXPECT_FALSE(glob->places_of("/v/a/sub").empty());
  EXPECT_TRUE(glob->places_of("/v/c").empty());
  EXPECT_TRUE(glob->places_of("/v/a/sub/deeper").empty());
  EXPECT_THAT(Glob::parse("/v/x.log")->roots(), testing::ElementsAre("/v", "/v/x.log"));
}

TEST(GlobTest, DirectoriesWithTheSamePlacesHaveTheSameMatchesBelow) {
  const auto any_depth = Glob::parse("/v/**/*.log");
  ASSERT_TRUE(any_depth);
  EXPECT_EQ(any_depth->places_of("/v"), any_depth->places_of("/v/a/b"));
  const auto by_level = Glob::parse("/v/*/logs/*.log");
  ASSERT_TRUE(by_level);
  EXPECT_EQ(by_level->places_of("/v/a"), by_level->places_of("/v/logs"));
  EXPECT_NE(by_level->places_of("/v/a"), by_level->places_of("/v/a/logs"));
  EXPECT_THAT(by_level->places_of("/v/a/other"), testing::IsEmpty());
}

}  // namespace
}  // namespace fantail
