#include "producer/position_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "tests/support/scratch_directory.h"

namespace fantail {
namespace {

constexpr StreamId kOne{1, 1};
constexpr StreamId kTwo{2, 2};

Fingerprint at(std::uint64_t cursor) {
  return {{cursor}, static_cast<std::uint32_t>(cursor % 4096), cursor + 1, cursor + 2};
}

class PositionFileTest : public testing::Test {
 protected:
  PositionFile open() {
    auto file = PositionFile::open(path, true);
    EXPECT_TRUE(file) << (file ? "" : file.error().context);
    return std::move(*file);
  }
  void overwrite(off_t offset, char byte) const {
    const UniqueFd fd(::open(path.c_str(), O_WRONLY));
    ASSERT_EQ(::pwrite(fd.get(), &byte, 1, offset), 1);
  }

  test::ScratchDirectory scratch;
  const std::string path = scratch / "positions";
};

TEST_F(PositionFileTest, WhatWasWrittenIsThereWhenItIsOpenedAgain) {
  {
    auto file = open();
    EXPECT_TRUE(file.slots().empty());
    const auto one = file.add(kOne, at(1));
    const auto two = file.add(kTwo, at(2));
    ASSERT_TRUE(one && two);
    file.write(*one, kOne, at(1'000'000));
  }
  auto again = open();
  const auto slots = again.slots();
  ASSERT_EQ(slots.size(), 2U);
  EXPECT_EQ(again.read(slots.at(kOne)), at(1'000'000));
  EXPECT_EQ(again.read(slots.at(kTwo)), at(2));
}

TEST_F(PositionFileTest, ASlotThatWasErasedIsUsedAgain) {
  auto file = open();
  const auto one = *file.add(kOne, at(1));
  file.erase(one);
  EXPECT_FALSE(file.read(one));
  EXPECT_EQ(*file.add(kTwo, at(2)), one);
  file.erase(one);
  file = open();
  EXPECT_TRUE(file.slots().empty());
}

TEST_F(PositionFileTest, ItGrowsAndKeepsWhatIsInIt) {
  constexpr std::uint64_t kMany = 5000;
  {
    auto file = open();
    for (std::uint64_t n = 1; n <= kMany; ++n) ASSERT_EQ(*file.add({n, n}, at(n)), n - 1);
  }
  auto file = open();
  const auto slots = file.slots();
  ASSERT_EQ(slots.size(), kMany);
  for (std::uint64_t n = 1; n <= kMany; ++n) ASSERT_EQ(file.read(slots.at({n, n})), at(n));
  EXPECT_EQ(*file.add({kMany + 1, 1}, at(1)), kMany);
}

TEST_F(PositionFileTest, AnEntryThatWasCutOffIsNone) {
  auto file = open();
  const auto one = *file.add(kOne, at(1));
  const auto two = *file.add(kTwo, at(2));
  overwrite(64 + 17, 'x');  // the cursor of the first
  EXPECT_FALSE(file.read(one));
  file = open();
  EXPECT_THAT(file.slots(), testing::ElementsAre(testing::Pair(kTwo, two)));
  EXPECT_EQ(*file.add(kOne, at(3)), one);
}

TEST_F(PositionFileTest, AnotherBootBeginsAnew) {
  ASSERT_TRUE(open().add(kOne, at(1)));
  overwrite(16, 'x');
  EXPECT_EQ(PositionFile::open(path, false).error().code, ErrorCode::kNotFound) << "whoever looks on changes nothing";
  EXPECT_TRUE(open().slots().empty());
}

TEST_F(PositionFileTest, WhatIsNoSuchFileIsBegunAnew) {
  test::append(path, std::string(1000, 'x'));
  EXPECT_TRUE(open().slots().empty());
}

TEST_F(PositionFileTest, WhoLooksOnMakesNone) {
  EXPECT_EQ(PositionFile::open(path, false).error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(PositionFileTest, WhereThereIsNoRoomItSaysSoAndKeepsWhatItHas) {
  auto file = open();
  const std::uintmax_t bytes = std::filesystem::file_size(path);
  std::uint64_t n = 1;
  for (; n <= bytes / 64 - 1; ++n) ASSERT_TRUE(file.add({n, n}, at(n)));
  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  ::getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit small{bytes, limit.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  EXPECT_FALSE(file.add({n, n}, at(n)));
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, before);
  EXPECT_EQ(file.read(0), at(1));
  EXPECT_TRUE(file.add({n, n}, at(n)));
}

}  // namespace
}  // namespace fantail
