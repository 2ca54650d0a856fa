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
  std::vector<std::string> arranged(const std::vector<std::string>& paths, StartOrder order) {
    std::vector<FoundFile> found;
    for (const std::string& path : paths) found.push_back({path, status_of(path).value()});
    arrange(found, order);
    std::vector<std::string> out;
    for (const FoundFile& file : found) out.push_back(file.path);
    return out;
  }
  test::ScratchDirectory files;
};

TEST_F(StartOrderTest, ByAgeOrByName) {
  const std::string b = written("b", 1);
  const std::string a = written("a", 2);
  const std::string c = written("c", 3);
  EXPECT_THAT(arranged({a, c, b}, StartOrder::kOldest), ElementsAre(b, a, c));
  EXPECT_THAT(arranged({b, a, c}, StartOrder::kNewest), ElementsAre(c, a, b));
  EXPECT_THAT(arranged({c, a, b}, StartOrder::kName), ElementsAre(a, b, c));
}

TEST_F(StartOrderTest, WhatIsTheSameAgeStaysAsItIs) {
  const std::string b = written("b", 1);
  const std::string a = written("a", 1);
  for (const StartOrder order : {StartOrder::kOldest, StartOrder::kNewest}) {
    EXPECT_THAT(arranged({b, a}, order), ElementsAre(b, a));
  }
}

}  // namespace
}  // namespace fantail
