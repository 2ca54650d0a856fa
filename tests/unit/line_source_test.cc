#include "pipeline/line_source.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>

#include "tests/support/scratch_directory.h"
#include "tests/support/seeded.h"

namespace fantail::pipeline {
namespace {

using testing::HasSubstr;

class LineSourceTest : public testing::Test {
 protected:
  LineSource source(const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    auto opened = LineSource::open(path);
    EXPECT_TRUE(opened) << opened.error().context;
    return std::move(*opened);
  }
  static std::uint64_t look_through(LineSource& source) {
    while (!source.complete()) EXPECT_TRUE(source.look_on());
    return source.lines();
  }

  test::ScratchDirectory scratch;
  const std::string path = scratch / "jobs";
};

TEST_F(LineSourceTest, LinesAreCountedAndFound) {
  auto lines = source("one\n\nthree\nlast");
  EXPECT_EQ(look_through(lines), 4U);
  EXPECT_EQ(lines.job(3).value(), "three");
  EXPECT_EQ(lines.job(1).value(), "one");
  EXPECT_EQ(lines.job(2).value(), "");
  EXPECT_EQ(lines.job(4).value(), "last");
  EXPECT_EQ(lines.job(4).value(), "last");
  EXPECT_THAT(lines.job(5).error().context, HasSubstr("has no line 5"));
  EXPECT_FALSE(lines.job(0));
}

TEST_F(LineSourceTest, AnEmptyFileHasNone) {
  auto lines = source("");
  EXPECT_EQ(look_through(lines), 0U);
  EXPECT_FALSE(lines.job(1));
}

TEST_F(LineSourceTest, AnyLineInAnyOrderAsAModelHasThem) {
  for (const std::uint64_t seed : test::seeds(20)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance random(seed);
    std::vector<std::string> truth;
    std::string text;
    const std::size_t count = random.between(std::size_t{1}, 3000);
    for (std::size_t i = 0; i < count; ++i) {
      std::string line(random.with(0.01) ? random.between(std::size_t{0}, 400'000) : random.between(std::size_t{0}, 60),
                       static_cast<char>('a' + i % 26));
      text += line + "\n";
      truth.push_back(std::move(line));
    }
    if (random.with(0.5)) {
      text.pop_back();
      if (truth.back().empty()) truth.pop_back();
    }
    auto lines = source(text);
    ASSERT_EQ(look_through(lines), truth.size());
    std::size_t at = 0;
    for (int i = 0; i < 500 && !truth.empty(); ++i) {
      at = random.with(0.7) ? (at + 1) % truth.size() : random.between(std::size_t{0}, truth.size() - 1);
      const auto line = lines.job(at + 1);
      ASSERT_TRUE(line) << line.error().context;
      ASSERT_EQ(*line, truth[at]) << at + 1;
    }
  }
}

TEST_F(LineSourceTest, WhatWasFoundSoFarCanBeReadAlready) {
  std::string text;
  for (int i = 1; i <= 300'000; ++i) text += "line " + std::to_string(i) + "\n";
  auto lines = source(text);
  const auto first = lines.look_on();
  ASSERT_TRUE(first);
  EXPECT_GT(*first, 1000U);
  EXPECT_LT(*first, 300'000U);
  EXPECT_EQ(lines.job(*first).value(), "line " + std::to_string(*first));
  EXPECT_EQ(look_through(lines), 300'000U);
  EXPECT_EQ(lines.job(300'000).value(), "line 300000");
}

TEST_F(LineSourceTest, WhatIsNoFileOrTooLongOrCutIsToldByName) {
  ASSERT_EQ(::mkfifo((scratch / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(LineSource::open(scratch / "pipe").error().context, HasSubstr("no regular file"));
  EXPECT_THAT(LineSource::open(scratch / "missing").error().context, HasSubstr("missing"));
  auto lines = source(std::string(LineSource::kMaxJobBytes + 1, 'x') + "\nshort\n");
  look_through(lines);
  for (int i = 0; i < 2; ++i) {
    for (int again = 0; again < 2; ++again) {
      const auto refused = lines.job(1);
      ASSERT_FALSE(refused) << *refused;
      EXPECT_THAT(refused.error().context, HasSubstr("line 1 is longer than 1 MiB"));
    }
    EXPECT_EQ(lines.job(2).value(), "short");
  }
  auto cut = source(std::string(1'000'000, 'y') + "\nend\n");
  look_through(cut);
  std::filesystem::resize_file(path, 10);
  EXPECT_THAT(cut.job(2).error().context, HasSubstr("became shorter"));
}

TEST_F(LineSourceTest, AnotherFileHasAnotherFingerprint) {
  const std::string text(500'000, 'z');
  const auto one = source(text).fingerprint().value();
  EXPECT_EQ(source(text).fingerprint().value(), one);
  EXPECT_NE(source(text + "z").fingerprint().value(), one);
  EXPECT_NE(source("a" + text.substr(1)).fingerprint().value(), one);
  EXPECT_NE(source(text.substr(1) + "a").fingerprint().value(), one);
  EXPECT_TRUE(source("").fingerprint());
}

}  // namespace
}  // namespace fantail::pipeline
