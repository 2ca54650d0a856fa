#include "consumer/line_assembler.h"

#include <gmock/gmock.h>

#include <vector>

#include "tests/support/seeded.h"

namespace fantail {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

/// Lines as "offset:text".
class LineAssemblerTest : public testing::Test {
 protected:
  std::vector<std::string> feed(std::string_view text) {
    std::vector<std::string> lines;
    assembler.feed(as_bytes(text), MonoTime{}, [&](FileOffset at, std::string_view line) {
      lines.push_back(std::to_string(at.raw) + ":" + std::string(line));
    });
    return lines;
  }
  std::vector<std::string> finish() {
    std::vector<std::string> lines;
    assembler.finish([&](FileOffset at, std::string_view line) {
      lines.push_back(std::to_string(at.raw) + ":" + std::string(line));
    });
    return lines;
  }
  LineAssembler assembler{FileOffset{100}, 10};
};

TEST_F(LineAssemblerTest, CutsAtNewlines) {
  EXPECT_THAT(feed("a\nbc\n\n"), ElementsAre("100:a", "102:bc", "105:"));
  EXPECT_EQ(assembler.done(), FileOffset{106});
}

TEST_F(LineAssemblerTest, PutsALineTogetherFromPieces) {
  EXPECT_THAT(feed("he"), IsEmpty());
  EXPECT_THAT(feed("ll"), IsEmpty());
  EXPECT_TRUE(assembler.has_partial());
  EXPECT_EQ(assembler.done(), FileOffset{100}) << "only whole lines are done";
  EXPECT_THAT(feed("o\nx"), ElementsAre("100:hello"));
  EXPECT_EQ(assembler.done(), FileOffset{106});
}

TEST_F(LineAssemblerTest, HandsOutTheLastLineWhenToldTo) {
  feed("a\nrest");
  EXPECT_THAT(finish(), ElementsAre("102:rest"));
  EXPECT_EQ(assembler.done(), FileOffset{106});
  EXPECT_THAT(finish(), IsEmpty());
}

TEST_F(LineAssemblerTest, AnEndlessLineComesInPieces) {
  EXPECT_THAT(feed("0123456789abcdef"), ElementsAre("100:0123456789"));
  EXPECT_THAT(feed("\n"), ElementsAre("110:abcdef"));
  EXPECT_EQ(assembler.done(), FileOffset{117});
}

TEST_F(LineAssemblerTest, GoesOnBehindALoss) {
  feed("abc");
  finish();
  assembler.skip_to({200});
  EXPECT_THAT(feed("x\n"), ElementsAre("200:x"));
}

TEST_F(LineAssemblerTest, HoweverTheTextIsCutTheLinesAreTheSame) {
  for (const std::uint64_t seed : test::seeds(200)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance chance(seed);
    const std::string text = chance.text(3000) + "\n";
    LineAssembler whole{FileOffset{}};
    LineAssembler pieces{FileOffset{}};
    LineAssembler runs{FileOffset{}};
    std::string expected;
    std::string got;
    std::string raw;
    const auto into = [](std::string& out) {
      return [&out](FileOffset at, std::string_view line) {
        out += std::to_string(at.raw) + ":" + std::string(line) + "\n";
      };
    };
    whole.feed(as_bytes(text), MonoTime{}, into(expected));
    for (std::size_t at = 0; at < text.size();) {
      const std::string_view piece =
          std::string_view(text).substr(at, chance.between(std::size_t{1}, std::size_t{200}));
      pieces.feed(as_bytes(piece), MonoTime{}, into(got));
      runs.feed_runs(as_bytes(piece), MonoTime{}, [&](std::string_view run) { raw += run; });
      EXPECT_EQ(runs.done(), pieces.done());
      EXPECT_EQ(raw.size(), runs.done().raw);
      at += piece.size();
    }
    EXPECT_EQ(got, expected);
    EXPECT_EQ(raw, text);
  }
}

TEST_F(LineAssemblerTest, NoLineIsLongerThanTheLimitHoweverTheTextIsCut) {
  constexpr std::size_t kLimit = 100;
  for (const std::uint64_t seed : test::seeds(200)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance chance(seed);
    std::string text;
    std::string expected;  // what is too long, cut at the limit
    while (text.size() < 3000) {
      const std::string line(chance.between(std::size_t{0}, 3 * kLimit), static_cast<char>('a' + text.size() % 26));
      text += line + "\n";
      for (std::size_t at = 0; at < line.size() || at == 0; at += kLimit) expected += line.substr(at, kLimit) + "\n";
    }
    LineAssembler lines(FileOffset{}, kLimit);
    LineAssembler runs(FileOffset{}, kLimit);
    std::string got;
    std::string raw;
    for (std::size_t at = 0; at < text.size();) {
      const std::string_view piece = std::string_view(text).substr(at, chance.between(std::size_t{1}, kLimit));
      lines.feed(as_bytes(piece), MonoTime{}, [&](FileOffset, std::string_view line) {
        EXPECT_LE(line.size(), kLimit);
        got += std::string(line) + "\n";
      });
      runs.feed_runs(as_bytes(piece), MonoTime{}, [&](std::string_view run) { raw += run; });
      EXPECT_EQ(lines.done(), runs.done());
      at += piece.size();
    }
    EXPECT_EQ(lines.done().raw, text.size());
    EXPECT_EQ(got, expected);
    EXPECT_EQ(raw, expected);
  }
}

}  // namespace
}  // namespace fantail
