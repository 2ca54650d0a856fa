#include "producer/start_order.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <array>

#include "tests/support/scratch_directory.h"

namespace fantail {
namespace {

using testing::ElementsAre;

class StartOrderTest : public testing::Test {
 protected:
  std::string written(const std::string& name, std::int64_t nanoseconds) {
    test::append(files / name, "x");
    const timespec time{1'700'000'000, nanoseconds};
    const std::array<timespec, 2> times{time, time};
    EXPECT_EQ(::utimensat(AT_FDCWD, (files / name).c_str(), times.data(), 0), 0);
    return files / name;
  }
  test::ScratchDirectory files;
};

TEST_F(StartOrderTest, ByAgeOrByName) {
  const std::string b = written("b", 1);
  const std::string a = written("a", 2);
  const std::string c = written("c", 3);
  std::vector<std::string> paths = {a, c, b};
  arrange(paths, StartOrder::kOldest);
  EXPECT_THAT(paths, ElementsAre(b, a, c));
  arrange(paths, StartOrder::kNewest);
  EXPECT_THAT(paths, ElementsAre(c, a, b));
  arrange(paths, StartOrder::kName);
  EXPECT_THAT(paths, ElementsAre(a, b, c));
}

TEST_F(StartOrderTest, WhatIsTheSameAgeStaysAsItIs) {
  const std::string b = written("b", 1);
  const std::string a = written("a", 1);
  for (const StartOrder order : {StartOrder::kOldest, StartOrder::kNewest}) {
    std::vector<std::string> paths = {b, a};
    arrange(paths, order);
    EXPECT_THAT(paths, ElementsAre(b, a));
  }
}

}  // namespace
}  // namespace fantail
