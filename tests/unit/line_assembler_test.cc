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
  /// Begins anew.
  void begin(std::uint64_t start, const LineCut& cut) {
    counters = {};
    assembler = LineAssembler({start}, cut, counters);
  }

  RecordCounters counters;
  LineAssembler assembler{FileOffset{100}, {.max_bytes = 10}, counters};
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
    RecordCounters counted;
    LineAssembler whole({}, {}, counted);
    LineAssembler pieces({}, {}, counted);
    LineAssembler runs({}, {}, counted);
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
    RecordCounters of_lines;
    RecordCounters of_runs;
    LineAssembler lines({}, {.max_bytes = kLimit}, of_lines);
    LineAssembler runs({}, {.max_bytes = kLimit}, of_runs);
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
    EXPECT_EQ(of_lines.lines_split, of_runs.lines_split);
  }
}

TEST_F(LineAssemblerTest, ACarriageReturnIsLeftOutAndDoesNotCount) {
  begin(0, {.max_bytes = 10, .strip_carriage_return = true});
  EXPECT_THAT(feed("a\r\n\r\nb\rc\n"), ElementsAre("0:a", "3:", "5:b\rc"));
  EXPECT_THAT(feed("0123456789\r"), IsEmpty());
  EXPECT_THAT(feed("\n"), ElementsAre("9:0123456789"));
  EXPECT_THAT(feed("0123456789\r+\n"), ElementsAre("21:0123456789", "31:\r+"));
  EXPECT_EQ(counters.lines_split, 1);
}

TEST_F(LineAssemblerTest, OfALongLineTheBeginningIsTakenAndDoneWaitsForItsEnd) {
  begin(0, {.max_bytes = 10, .long_lines = LongLines::kTruncate});
  EXPECT_THAT(feed("0123456789abc"), IsEmpty());
  EXPECT_THAT(feed("def"), IsEmpty());
  EXPECT_EQ(assembler.done(), FileOffset{0}) << "who begins in the middle would take the rest for a line";
  EXPECT_THAT(feed("ghi\nnext\n0123456789A\n"), ElementsAre("0:0123456789", "20:next", "25:0123456789"));
  EXPECT_EQ(assembler.done(), FileOffset{37});
  EXPECT_EQ(counters.lines_truncated, 2);
}

TEST_F(LineAssemblerTest, ALongLineIsLeftOut) {
  begin(0, {.max_bytes = 10, .long_lines = LongLines::kSkip});
  EXPECT_THAT(feed("0123456789abc"), IsEmpty());
  EXPECT_TRUE(assembler.has_partial());
  EXPECT_THAT(feed("def\nnext\n"), ElementsAre("17:next"));
  EXPECT_THAT(feed("0123456789\n0123456789A\n"), ElementsAre("22:0123456789"));
  EXPECT_EQ(assembler.done(), FileOffset{45});
  EXPECT_EQ(counters.lines_skipped, 2);
  feed("endless, no end");
  EXPECT_THAT(finish(), IsEmpty());
  EXPECT_EQ(assembler.done(), FileOffset{60});
}

TEST_F(LineAssemblerTest, AnEndlessLineDoesNotHoldDoneBackForEver) {
  begin(0, {.max_bytes = 4, .long_lines = LongLines::kTruncate, .max_dropped_bytes = 10});
  EXPECT_THAT(feed("012345678"), IsEmpty());
  EXPECT_THAT(feed("9"), ElementsAre("0:0123"));
  EXPECT_EQ(assembler.done(), FileOffset{10});
  EXPECT_THAT(feed("abc\n0123456"), ElementsAre("10:abc"));
  EXPECT_THAT(feed("789ABC\n"), ElementsAre("14:0123", "24:ABC")) << "also when its end comes with it";
}

TEST_F(LineAssemblerTest, PiecesDoNotEndWithinACharacter) {
  begin(0, {.max_bytes = 5, .encoding = TextEncoding::kUtf8});
  EXPECT_THAT(feed("abcd\u20acf\n"), ElementsAre("0:abcd", "4:\u20acf"));
  begin(0, {.max_bytes = 6, .encoding = TextEncoding::kUtf16Le});
  EXPECT_THAT(feed(std::string("a\0b\0", 4)), IsEmpty());
  EXPECT_EQ(assembler.done(), FileOffset{0});
  feed(std::string_view("\x3D\xD8\x00\xDE\x3D\xD8\x00\xDE\n\0", 10));
  EXPECT_EQ(counters.lines_split, 2) << "4, 4 and 4 bytes";
  EXPECT_EQ(assembler.done(), FileOffset{14});
}

TEST_F(LineAssemblerTest, InUtf16OnlyAWholeUnitIsANewline) {
  begin(0, {.encoding = TextEncoding::kUtf16Le});
  // U+0A0A, U+0A05 and U+000A: bytes of a newline are everywhere.
  const std::string text("\x0A\x0A\x05\x0A\x0A\x00", 6);
  std::vector<std::string> lines;
  for (const char byte : text) {
    for (auto& line : feed({&byte, 1})) lines.push_back(std::move(line));
  }
  EXPECT_THAT(lines, ElementsAre("0:\x0A\x0A\x05\x0A"));
}

TEST_F(LineAssemblerTest, BehindALossUnitsAreStillWhole) {
  begin(0, {.encoding = TextEncoding::kUtf16Be});
  feed(std::string_view("\0a\0", 3));
  EXPECT_THAT(finish(), ElementsAre(std::string("0:\0a\0", 5)));
  assembler.skip_to({101});
  EXPECT_THAT(feed(std::string_view("x\0b\0\n", 5)), ElementsAre(std::string("102:\0b", 6)));
}

TEST_F(LineAssemblerTest, TheByteOrderIsFoundOut) {
  struct Case {
    std::uint64_t start;
    std::string text;
    TextEncoding expected;
  };
  using namespace std::string_literals;
  for (const Case& c : {Case{0, "\xFF\xFE"s, TextEncoding::kUtf16Le}, Case{0, "\xFE\xFF"s, TextEncoding::kUtf16Be},
                        Case{0, "a\0\n\0"s, TextEncoding::kUtf16Le}, Case{8, "\0a\0\n"s, TextEncoding::kUtf16Be},
                        Case{8, "\0a\0b"s, TextEncoding::kUtf16Be}, Case{8, "a\0b\0"s, TextEncoding::kUtf16Le}}) {
    begin(c.start, {.encoding = TextEncoding::kUtf16});
    for (const char byte : c.text) feed({&byte, 1});
    finish();
    EXPECT_EQ(assembler.encoding(), c.expected) << testing::PrintToString(c.text);
  }
}

TEST_F(LineAssemblerTest, AnUnfinishedLineIsShownWithoutHalfACharacter) {
  const auto flush = [&] {
    std::vector<std::string> lines;
    assembler.flush_partial([&](FileOffset at, std::string_view line) {
      lines.push_back(std::to_string(at.raw) + ":" + std::string(line));
    });
    return lines;
  };
  begin(0, {.encoding = TextEncoding::kUtf8, .strip_carriage_return = true});
  feed("ab\xE2\x82");
  EXPECT_THAT(flush(), ElementsAre("0:ab"));
  EXPECT_THAT(feed("\xAC\n"), ElementsAre("2:\u20ac"));
  feed("c\r");
  EXPECT_THAT(flush(), ElementsAre("6:c"));
  EXPECT_THAT(flush(), IsEmpty());
  EXPECT_THAT(feed("\n"), ElementsAre("7:"));
}

}  // namespace
}  // namespace fantail
