#include "common/storage/open_beneath.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "tests/support/scratch_directory.h"

namespace fantail {
namespace {

namespace fs = std::filesystem;

class MakeDirectoriesBeneathTest : public testing::Test {
 protected:
  MakeDirectoriesBeneathTest() {
    fs::create_directories(scratch.path() / "root/a/b");
    fs::create_directories(scratch.path() / "outside");
    std::ofstream(scratch.path() / "root/a/b/file") << "inside";
    std::ofstream(scratch.path() / "outside/file") << "outside";
    root = UniqueFd(::open((scratch.path() / "root").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }

  test::ScratchDirectory scratch;
  UniqueFd root;
};

/// Each case both ways.
class OpenBeneathTest : public MakeDirectoriesBeneathTest, public testing::WithParamInterface<Resolve> {
 protected:
  UniqueFd open(const std::string& name, int flags) {
    errno = 0;
    return open_beneath(root.get(), name, flags, 0600, GetParam());
  }
};

TEST_P(OpenBeneathTest, OpensWhatIsThereAndMakesWhatIsNot) {
  EXPECT_TRUE(open("a/b/file", O_RDONLY));
  EXPECT_FALSE(open("a/b/new", O_WRONLY));
  EXPECT_EQ(errno, ENOENT);
  const UniqueFd made = open("a/b/new", O_WRONLY | O_CREAT | O_EXCL);
  ASSERT_TRUE(made);
  struct stat status {};
  ASSERT_EQ(::fstat(made.get(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  EXPECT_NE(::fcntl(made.get(), F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_FALSE(open("a/b/new", O_WRONLY | O_CREAT | O_EXCL));
  EXPECT_EQ(errno, EEXIST);
  EXPECT_FALSE(open("no/where", O_WRONLY | O_CREAT));
  EXPECT_EQ(errno, ENOENT);
}

TEST_P(OpenBeneathTest, NoLinkIsFollowedWhereverItStands) {
  fs::create_symlink("../outside", scratch.path() / "root/link");
  fs::create_symlink("b", scratch.path() / "root/a/inside");
  fs::create_symlink("../../../outside/file", scratch.path() / "root/a/b/last");
  for (const char* name : {"link/file", "a/inside/file", "a/b/last"}) {
    EXPECT_FALSE(open(name, O_RDONLY)) << name;
    EXPECT_THAT(errno, testing::AnyOf(ELOOP, ENOTDIR)) << name;
    EXPECT_FALSE(open(name, O_WRONLY | O_CREAT)) << name;
  }
  EXPECT_EQ(test::contents(scratch / "outside/file"), "outside");
  const UniqueFd link = open("a/b/last", O_PATH);
  struct stat status {};
  ASSERT_TRUE(link && ::fstat(link.get(), &status) == 0) << "the link itself";
  EXPECT_TRUE(S_ISLNK(status.st_mode));
}

TEST_P(OpenBeneathTest, AFileInTheWayIsNoDirectory) {
  EXPECT_FALSE(open("a/b/file/more", O_RDONLY));
  EXPECT_EQ(errno, ENOTDIR);
}

INSTANTIATE_TEST_SUITE_P(Both, OpenBeneathTest, testing::Values(Resolve::kTogether, Resolve::kOneByOne),
                         [](const auto& way) { return way.param == Resolve::kTogether ? "together" : "one_by_one"; });

TEST_F(MakeDirectoriesBeneathTest, MakesAllButTheLastPartAndGoesThroughNoLink) {
  EXPECT_EQ(make_directories_beneath(root.get(), "a/c/d/file"), 2);
  EXPECT_TRUE(fs::is_directory(scratch.path() / "root/a/c/d"));
  EXPECT_FALSE(fs::exists(scratch.path() / "root/a/c/d/file"));
  EXPECT_EQ(make_directories_beneath(root.get(), "a/c/d/file"), 0);
  EXPECT_EQ(make_directories_beneath(root.get(), "plain"), 0);
  fs::create_symlink("../outside", scratch.path() / "root/link");
  EXPECT_EQ(make_directories_beneath(root.get(), "link/made/file"), -1);
  EXPECT_FALSE(fs::exists(scratch.path() / "outside/made"));
  EXPECT_EQ(make_directories_beneath(root.get(), "a/b/file/made/x"), -1);
  EXPECT_EQ(errno, ENOTDIR);
}

}  // namespace
}  // namespace fantail
