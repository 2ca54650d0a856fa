#include "common/transport/waiter.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>

#include "common/base/unique_fd.h"

namespace fantail {
namespace {

class PipeWaiterTest : public testing::Test {
 protected:
  void SetUp() override {
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe2(ends.data(), O_NONBLOCK | O_CLOEXEC), 0);
    reader = UniqueFd(ends[0]);
    writer = UniqueFd(ends[1]);
  }
  bool writable(Duration timeout) {
    Waiter waiter;
    waiter.add_writable(writer.get());
    waiter.wait(timeout);
    return waiter.ready(writer.get());
  }
  UniqueFd reader;
  UniqueFd writer;
  std::array<char, 4096> bytes{};
};

TEST_F(PipeWaiterTest, APipeIsWaitedForUntilItCanBeWrittenTo) {
  EXPECT_TRUE(writable(1h)) << "it is empty";
  while (::write(writer.get(), bytes.data(), bytes.size()) > 0) {
  }
  EXPECT_FALSE(writable(1ms)) << "it is full";
  ASSERT_EQ(::read(reader.get(), bytes.data(), bytes.size()), 4096);
  EXPECT_TRUE(writable(1h)) << "there is room again";
}

TEST_F(PipeWaiterTest, NobodyToReadEndsTheWait) {
  while (::write(writer.get(), bytes.data(), bytes.size()) > 0) {
  }
  reader.reset();
  EXPECT_TRUE(writable(1h));
}

}  // namespace
}  // namespace fantail
