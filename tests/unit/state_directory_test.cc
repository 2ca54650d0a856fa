#include "common/storage/state_directory.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "tests/support/scratch_directory.h"

namespace fantail {
namespace {

using testing::HasSubstr;

TEST(StateDirectoryTest, IsMadeWithItsParents) {
  const test::ScratchDirectory scratch;
  const auto state = StateDirectory::open(scratch.path() / "a/b");
  ASSERT_TRUE(state) << state.error().context;
  EXPECT_TRUE(std::filesystem::is_directory(scratch.path() / "a/b"));
}

TEST(StateDirectoryTest, IsNotReadableByOthers) {
  const test::ScratchDirectory scratch;
  ASSERT_TRUE(StateDirectory::open(scratch.path() / "a"));
  struct stat status {};
  ASSERT_EQ(::stat((scratch / "a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0007U, 0U);
}

TEST(StateDirectoryTest, BelongsToOneAtATimeWhoIsNamed) {
  const test::ScratchDirectory scratch;
  {
    const auto first = StateDirectory::open(scratch.path());
    ASSERT_TRUE(first);
    const auto second = StateDirectory::open(scratch.path());
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::kBusy);
    EXPECT_THAT(second.error().context, HasSubstr("process " + std::to_string(::getpid())));
  }
  EXPECT_TRUE(StateDirectory::open(scratch.path()));
}

TEST(StateDirectoryTest, APlaceThatCannotBeUsedIsAnErrorWithARemedy) {
  const test::ScratchDirectory scratch;
  test::append(scratch / "file", "");
  const auto state = StateDirectory::open(scratch.path() / "file/below");
  ASSERT_FALSE(state);
  EXPECT_EQ(state.error().code, ErrorCode::kInvalid) << "it is the operator's to change";
  EXPECT_THAT(state.error().context, HasSubstr("--state-dir"));
}

TEST(StateDirectoryTest, SetsADamagedFileAsideWithItsCompanions) {
  const test::ScratchDirectory scratch;
  const auto state = StateDirectory::open(scratch.path());
  ASSERT_TRUE(state);
  test::append(scratch / "x.db", "damaged");
  test::append(scratch / "x.db-wal", "its log");
  const auto kept = state->set_aside("x.db");
  ASSERT_TRUE(kept);
  EXPECT_FALSE(std::filesystem::exists(scratch / "x.db"));
  EXPECT_FALSE(std::filesystem::exists(scratch / "x.db-wal"));
  EXPECT_THAT(kept->string(), HasSubstr("x.db.damaged-"));
  EXPECT_EQ(test::contents(kept->string()), "damaged");
  EXPECT_EQ(test::contents(kept->string() + "-wal"), "its log");
}

TEST(StateDirectoryTest, SystemdHasTheFirstWord) {
  ::setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two", 1);
  EXPECT_EQ(default_state_directory("producer"), "/var/lib/one");
  ::unsetenv("STATE_DIRECTORY");
  EXPECT_THAT(default_state_directory("producer").string(), testing::EndsWith("fantail/producer"));
}

}  // namespace
}  // namespace fantail
