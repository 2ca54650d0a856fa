#include "common/base/unique_fd.h"

#include <fcntl.h>
#include <gmock/gmock.h>

#include <array>

namespace fantail {
namespace {

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

UniqueFd open_something() { return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

TEST(UniqueFdTest, HoldsNothingToBeginWith) {
  const UniqueFd fd;
  EXPECT_FALSE(fd);
  EXPECT_EQ(fd.get(), -1);
}

TEST(UniqueFdTest, DescriptorZeroCountsAsHeld) {
  const int saved = ::dup(0);
  ::close(0);
  {
    const UniqueFd fd = open_something();
    EXPECT_EQ(fd.get(), 0);
    EXPECT_TRUE(fd);
  }
  EXPECT_FALSE(is_open(0));
  if (saved >= 0) {
    ::dup2(saved, 0);
    ::close(saved);
  }
}

TEST(UniqueFdTest, ClosesItsDescriptorAtTheEndOfItsLife) {
  int raw = -1;
  {
    const UniqueFd fd = open_something();
    raw = fd.get();
    ASSERT_TRUE(is_open(raw));
  }
  EXPECT_FALSE(is_open(raw));
}

TEST(UniqueFdTest, MovedFromHoldsNothingAndClosesNothing) {
  UniqueFd first = open_something();
  const int raw = first.get();
  {
    const UniqueFd second = std::move(first);
    EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): this is the promise
    EXPECT_EQ(second.get(), raw);
    first.reset();
    EXPECT_TRUE(is_open(raw));
  }
  EXPECT_FALSE(is_open(raw));
}

TEST(UniqueFdTest, AssignmentLeavesNeitherDescriptorOpenWithoutAnOwner) {
  int first_raw = -1;
  int second_raw = -1;
  {
    UniqueFd first = open_something();
    UniqueFd second = open_something();
    first_raw = first.get();
    second_raw = second.get();
    first = std::move(second);
    EXPECT_EQ(first.get(), second_raw);
  }
  EXPECT_FALSE(is_open(first_raw));
  EXPECT_FALSE(is_open(second_raw));
}

TEST(UniqueFdTest, ResetTwiceClosesOnce) {
  UniqueFd fd = open_something();
  fd.reset();
  const UniqueFd other = open_something();  // gets the number that has just become free
  fd.reset();
  EXPECT_TRUE(is_open(other.get()));
}

}  // namespace
}  // namespace fantail
