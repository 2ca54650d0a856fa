#include "producer/file_removal.h"

#include <fcntl.h>
#include <gmock/gmock.h>

#include <filesystem>

#include "tests/support/scratch_directory.h"

namespace fantail {
namespace {

using test::contents;

/// What happens while a file is removed happens when it is asked whether it is intact: that is the last look at it
/// under its own name.
class FileRemovalTest : public testing::Test {
 protected:
  FileRemovalTest() { test::append(path, "of the stream\n"); }

  tl::expected<void, LeftAlone> remove(const std::function<bool()>& intact) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    const auto status = status_of(path);
    if (!fd || !status) throw std::runtime_error("cannot open " + path);
    return remove_file({fd.get(), path, aside, status->key, status->size}, Duration::zero(), intact);
  }

  test::ScratchDirectory files;
  const std::string path = files / "a.log";
  const std::string aside = files / ".aside";
};

TEST_F(FileRemovalTest, AnIntactFileIsRemoved) {
  EXPECT_TRUE(remove([] { return true; }));
  EXPECT_TRUE(std::filesystem::is_empty(files.path()));
}

TEST_F(FileRemovalTest, WhatIsNotIntactStays) {
  const auto left = remove([] { return false; });
  ASSERT_FALSE(left);
  EXPECT_EQ(left.error().path, path);
  EXPECT_EQ(contents(path), "of the stream\n");
  EXPECT_FALSE(std::filesystem::exists(aside));
}

TEST_F(FileRemovalTest, WhatSomebodyHasOpenForWritingStaysHoweverLongItWasNotWritten) {
  const UniqueFd writer(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (writers_of(UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)).get()) == Writers::kUnknown) {
    GTEST_SKIP() << "no leases here";
  }
  EXPECT_FALSE(remove([] { return true; }));
  EXPECT_EQ(contents(path), "of the stream\n");
}

TEST_F(FileRemovalTest, AFileThatTakesItsPlaceMeanwhileIsPutBack) {
  test::append(files / "another", "nobody has read this\n");
  const auto left = remove([&] {
    std::filesystem::rename(files / "another", path);
    return true;
  });
  ASSERT_FALSE(left);
  EXPECT_EQ(left.error().path, path);
  EXPECT_EQ(contents(path), "nobody has read this\n");
  EXPECT_FALSE(std::filesystem::exists(aside));
}

TEST_F(FileRemovalTest, AFileThatGetsAnotherNameMeanwhileStays) {
  const auto left = remove([&] {
    std::filesystem::create_hard_link(path, files / "kept.log");
    return true;
  });
  ASSERT_FALSE(left);
  EXPECT_EQ(left.error().path, path);
  EXPECT_EQ(contents(path), "of the stream\n");
  EXPECT_EQ(contents(files / "kept.log"), "of the stream\n");
}

}  // namespace
}  // namespace fantail
