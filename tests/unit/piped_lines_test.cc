#include "pipeline/piped_lines.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include "common/base/unique_fd.h"
#include "common/transport/waiter.h"
#include "tests/support/seeded.h"

namespace fantail::pipeline {
namespace {

using testing::HasSubstr;

class PipedLinesTest : public testing::Test {
 protected:
  PipedLinesTest() {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    reading = UniqueFd(ends[0]);
    writing = UniqueFd(ends[1]);
    auto opened = PipedLines::open(reading.get(), "the pipe");
    EXPECT_TRUE(opened) << opened.error().context;
    lines = std::move(*opened);
  }
  void write(std::string_view text) {
    ASSERT_EQ(::write(writing.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  /// Until there is nothing more for now; how many lines are new.
  std::uint64_t look_on() {
    std::uint64_t found = 0;
    for (int idle = 0; idle < 2 && !lines->complete();) {
      const auto more = lines->look_on();
      EXPECT_TRUE(more) << more.error().context;
      if (!more) break;
      found += *more;
      idle = *more == 0 ? idle + 1 : 0;
    }
    return found;
  }
  bool asks_for_more() const {
    Waiter waiter;
    lines->add_to(waiter);
    waiter.wait(Duration{});
    return waiter.ready(reading.get());
  }

  UniqueFd reading;
  UniqueFd writing;
  std::unique_ptr<PipedLines> lines;
};

TEST_F(PipedLinesTest, WhatHasComeIsThereBeforeTheEnd) {
  EXPECT_EQ(look_on(), 0U);
  write("one\n\nthr");
  EXPECT_EQ(look_on(), 2U);
  EXPECT_EQ(lines->job(1).value(), "one");
  EXPECT_EQ(lines->job(2).value(), "");
  EXPECT_FALSE(lines->job(3));
  write("ee\nlast");
  EXPECT_EQ(look_on(), 1U);
  EXPECT_FALSE(lines->complete());
  writing.reset();
  EXPECT_EQ(look_on(), 1U);
  EXPECT_TRUE(lines->complete());
  EXPECT_EQ(lines->job(3).value(), "three");
  EXPECT_EQ(lines->job(4).value(), "last");
  EXPECT_EQ(lines->job(1).value(), "one") << "again";
}

TEST_F(PipedLinesTest, AnEmptyPipeHasNone) {
  writing.reset();
  EXPECT_EQ(look_on(), 0U);
  EXPECT_TRUE(lines->complete());
}

TEST_F(PipedLinesTest, ItIsReadSomeMegabytesAheadOfTheJobsThatAreAskedFor) {
  const std::string line(1023, 'x');
  const std::string piece = line + "\n" + line + "\n";
  std::uint64_t found = 0;
  std::uint64_t written = 0;
  for (; written < 100'000; written += 2) {
    write(piece);
    const std::uint64_t more = look_on();
    if (more == 0) break;
    found += more;
  }
  EXPECT_GT(found, 3000U);
  EXPECT_LT(found, 5000U);
  EXPECT_FALSE(asks_for_more()) << "although there is something";
  for (std::uint64_t number = 1; number <= found; ++number) ASSERT_EQ(lines->job(number).value(), line);
  EXPECT_TRUE(asks_for_more());
  EXPECT_EQ(look_on(), 2U);
}

TEST_F(PipedLinesTest, ALineThatIsTooLongIsNeitherKeptNorInTheWay) {
  const std::string piece(32 * 1024, 'x');
  for (int i = 0; i < 40; ++i) {
    write(piece);
    EXPECT_EQ(look_on(), 0U);
  }
  write("\nshort\n");
  EXPECT_EQ(look_on(), 2U);
  EXPECT_THAT(lines->job(1).error().context, HasSubstr("the pipe: line 1 is longer than 1 MiB"));
  EXPECT_EQ(lines->job(2).value(), "short");
}

TEST_F(PipedLinesTest, AnyPiecesMakeTheLinesThatWereWritten) {
  for (const std::uint64_t seed : test::seeds(20)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance random(seed);

    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    reading = UniqueFd(ends[0]);
    writing = UniqueFd(ends[1]);
    lines = std::move(*PipedLines::open(reading.get(), "the pipe"));
    std::vector<std::string> truth;
    std::string text;
    for (std::size_t i = random.between(std::size_t{0}, 500); i > 0; --i) {
      truth.emplace_back(random.between(std::size_t{0}, random.with(0.02) ? 30'000 : 40),
                         static_cast<char>('a' + i % 26));
      text += truth.back() + '\n';
    }
    if (random.with(0.5) && !truth.empty() && !truth.back().empty()) text.pop_back();
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t n = std::min(text.size() - at, random.between(std::size_t{1}, 20'000));
      write(std::string_view(text).substr(at, n));
      at += n;
      if (random.with(0.7)) look_on();
      while (asks_for_more()) look_on();
    }
    writing.reset();
    look_on();
    ASSERT_TRUE(lines->complete());
    for (std::size_t i = 0; i < truth.size(); ++i) ASSERT_EQ(lines->job(i + 1).value(), truth[i]);
    EXPECT_FALSE(lines->job(truth.size() + 1));
  }
}

}  // namespace
}  // namespace fantail::pipeline
