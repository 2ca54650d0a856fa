#include "consumer/record_assembler.h"

#include <gmock/gmock.h>

#include <map>

#include "tests/support/seeded.h"

namespace fantail {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

Regex regex(const std::string& text) { return *Regex::compile("--flag", text); }

class RecordAssemblerTest : public testing::Test {
 protected:
  void join(const char* start) {
    context.rules.multiline = std::make_shared<const MultilineRule>(MultilineRule::custom(regex(start), std::nullopt));
    context.rules.multiline_timeout = 5s;
  }
  auto note() {
    return [this](FileOffset at, std::string_view text) {
      records.push_back(std::to_string(at.raw) + ":" + std::string(text));
    };
  }
  std::vector<std::string> taken() { return std::exchange(records, {}); }
  std::vector<std::string> feed(std::string_view text, MonoTime now = {}) {
    assembler().feed(as_bytes(text), now, note());
    return taken();
  }
  std::vector<std::string> flush(MonoTime now, std::optional<Duration> partial = std::nullopt) {
    assembler().flush_overdue(now, partial, note());
    return taken();
  }
  std::vector<std::string> finish() {
    assembler().finish(note());
    return taken();
  }
  RecordAssembler& assembler() {
    if (!assembler_) assembler_.emplace(FileOffset{}, context);
    return *assembler_;
  }

  RecordContext context;
  std::vector<std::string> records;

 private:
  std::optional<RecordAssembler> assembler_;
};

TEST_F(RecordAssemblerTest, AnOpenRecordHoldsThePositionBack) {
  join("^S");
  EXPECT_THAT(feed("S1\nmore\nS2\nla"), ElementsAre("0:S1\nmore"));
  EXPECT_EQ(assembler().position(), FileOffset{8});
  EXPECT_THAT(feed("st\n"), IsEmpty());
  EXPECT_EQ(assembler().position(), FileOffset{8});
  EXPECT_THAT(finish(), ElementsAre("8:S2\nlast"));
  EXPECT_EQ(assembler().position(), FileOffset{16});
}

TEST_F(RecordAssemblerTest, ARecordIsWholeWhenNothingCameForAWhile) {
  join("^S");
  feed("S1\nmore\nunfin", MonoTime{10s});
  EXPECT_FALSE(assembler().overdue(MonoTime{14s}, std::nullopt));
  EXPECT_THAT(flush(MonoTime{14s}), IsEmpty());
  EXPECT_TRUE(assembler().overdue(MonoTime{15s}, std::nullopt));
  EXPECT_THAT(flush(MonoTime{15s}), ElementsAre("0:S1\nmore")) << "the unfinished line waits";
  EXPECT_EQ(assembler().position(), FileOffset{8});
  EXPECT_FALSE(assembler().has_open());
  EXPECT_THAT(feed("ished\n", MonoTime{16s}), IsEmpty());
  assembler().more_is_coming(MonoTime{20s});
  EXPECT_THAT(flush(MonoTime{24s}), IsEmpty());
  EXPECT_THAT(flush(MonoTime{25s}), ElementsAre("8:unfinished"));
}

TEST_F(RecordAssemblerTest, ARecordThatGetsTooLongEndsAndIsCounted) {
  context.rules.cut.max_bytes = 10;
  join("^S");
  EXPECT_THAT(feed("S1\nab\ncd\nef\ngh\nS2\n"), ElementsAre("0:S1\nab\ncd", "9:ef\ngh"));
  EXPECT_EQ(context.counters.records_split, 1);
}

TEST_F(RecordAssemblerTest, WholeRecordsAreFiltered) {
  join("^S");
  context.rules.filter =
      std::make_shared<RecordFilter>(RecordFilter{{regex("good"), regex("(?m)^fine$")}, {regex("secret")}});
  EXPECT_THAT(feed("S1\ngood\nS2\nbad\nS3\nfine\nS4 good\nsecret\nS5\n"), ElementsAre("0:S1\ngood", "15:S3\nfine"));
  EXPECT_EQ(context.counters.records_filtered, 2);
  EXPECT_EQ(assembler().position(), FileOffset{38}) << "what is left out is done";
}

TEST_F(RecordAssemblerTest, AByteOrderMarkIsLeftOutAtTheStartOfTheStreamOnly) {
  context.rules.cut.encoding = TextEncoding::kUtf8;
  EXPECT_THAT(feed("\uFEFFa\n\uFEFFb\n"), ElementsAre("0:a", "5:\uFEFFb"));
}

TEST_F(RecordAssemblerTest, PlainTextKeepsIt) { EXPECT_THAT(feed("\uFEFFa\n"), ElementsAre("0:\uFEFFa")); }

// ---- against a model

/// Lines that are known before they are bytes: so the records are known, too, without cutting or decoding any.
struct Model {
  struct Line {
    std::u32string text;
    std::uint64_t start = 0;
    std::uint64_t end = 0;
  };
  explicit Model(test::Chance& chance) : chance_(chance) {
    std::vector<TextEncoding> encodings = {TextEncoding::kUtf8, TextEncoding::kUtf16Le, TextEncoding::kUtf16Be,
                                           TextEncoding::kUtf16, TextEncoding::kLatin1};
    std::vector<LongLines> policies = {LongLines::kSplit, LongLines::kTruncate, LongLines::kSkip};
    rules.cut.encoding = chance.one_of(encodings);
    rules.cut.long_lines = chance.one_of(policies);
    rules.cut.max_bytes = chance.between(std::size_t{64}, std::size_t{100});
    rules.cut.strip_carriage_return = chance.with(0.7);
    if (chance.with(0.7)) {
      joined_ = true;
      rules.multiline = std::make_shared<const MultilineRule>(MultilineRule::custom(regex("^S"), std::nullopt));
      rules.multiline_timeout = 1h;
    }
    if (chance.with(0.5)) {
      filtered_ = true;
      rules.filter = std::make_shared<RecordFilter>(RecordFilter{{}, {regex("X")}});
    }
    written_ = rules.cut.encoding;
    if (written_ == TextEncoding::kUtf16) written_ = chance.with(0.5) ? TextEncoding::kUtf16Le : TextEncoding::kUtf16Be;
    write_all();
  }

  LineRules rules;
  std::string bytes;
  std::vector<std::string> records;

 private:
  std::string encoded(char32_t c) const {
    std::string out;
    const auto unit = [&](char32_t u) {
      const char low = static_cast<char>(u & 0xFF);
      const char high = static_cast<char>(u >> 8);
      out += written_ == TextEncoding::kUtf16Le ? std::string{low, high} : std::string{high, low};
    };
    if (written_ == TextEncoding::kLatin1) return {static_cast<char>(c)};
    if (written_ == TextEncoding::kUtf8) return utf8(c);
    if (c >= 0x10000) {
      unit(0xD800 + ((c - 0x10000) >> 10));
      unit(0xDC00 + ((c - 0x10000) & 0x3FF));
    } else {
      unit(c);
    }
    return out;
  }
  static std::string utf8(char32_t c) {
    static const std::map<char32_t, std::string> kKnown = {{U'\u00e9', "\u00e9"},         {U'\u0a0a', "\u0a0a"},
                                                           {U'\u0d0d', "\u0d0d"},         {U'\u20ac', "\u20ac"},
                                                           {U'\U0001F600', "\U0001F600"}, {U'\uFEFF', "\uFEFF"}};
    const auto known = kKnown.find(c);
    return known == kKnown.end() ? std::string(1, static_cast<char>(c)) : known->second;
  }

  void write_all() {
    std::u32string alphabet = U"abX \r\u00e9";
    if (written_ != TextEncoding::kLatin1) alphabet += U"\u0a0a\u0d0d\u20ac\U0001F600";
    const bool marked = written_ != TextEncoding::kLatin1 && chance_.with(0.5);
    if (marked) bytes += encoded(U'\uFEFF');
    const std::size_t count = chance_.between(std::size_t{1}, std::size_t{40});
    for (std::size_t i = 0; i < count; ++i) {
      std::u32string text(chance_.between(std::size_t{0}, chance_.with(0.2) ? std::size_t{150} : std::size_t{12}),
                          U' ');
      for (char32_t& c : text) c = chance_.one_of(alphabet);
      if (chance_.with(0.3)) text.insert(0, U"S");
      while (text.ends_with(U'\r')) text.pop_back();  // it would belong to the line end
      const bool with_return = chance_.with(0.5);
      const bool last_unfinished = i + 1 == count && chance_.with(0.5);
      add(marked && i == 0, text, with_return, last_unfinished);
    }
    close();
  }

  /// Long lines by the rule, then each as a line of a record.
  void add(bool behind_mark, std::u32string text, bool with_return, bool unfinished) {
    std::uint64_t at = behind_mark ? 0 : bytes.size();
    std::uint64_t budget_used = behind_mark ? bytes.size() : 0;  // the mark counts
    for (const char32_t c : text) bytes += encoded(c);
    if (with_return) bytes += encoded(U'\r');
    if (!unfinished) bytes += encoded(U'\n');
    if (with_return && !rules.cut.strip_carriage_return) text += U'\r';
    std::vector<Line> pieces(1);
    pieces.back().start = pieces.back().end = at;
    pieces.back().end += budget_used;
    for (const char32_t c : text) {
      const std::size_t size = encoded(c).size();
      if (pieces.back().end + size - pieces.back().start > rules.cut.max_bytes) {
        pieces.push_back({{}, pieces.back().end, pieces.back().end});
      }
      pieces.back().text += c;
      pieces.back().end += size;
    }
    if (unfinished && pieces.back().start == bytes.size()) return;  // nothing was written
    if (rules.cut.long_lines == LongLines::kSkip && pieces.size() > 1) return;
    if (rules.cut.long_lines == LongLines::kTruncate) pieces.resize(1);
    pieces.back().end = bytes.size();
    for (const Line& piece : pieces) take(piece);
  }

  void take(const Line& line) {
    std::string text;
    for (const char32_t c : line.text) text += utf8_of(c);
    const bool begins = !joined_ || !open_ || text.starts_with("S") || line.end - open_->first > rules.cut.max_bytes;
    if (begins) {
      close();
      open_.emplace(line.start, text);
    } else {
      open_->second += "\n" + text;
    }
  }
  std::string utf8_of(char32_t c) const { return utf8(c); }
  void close() {
    if (open_ && !(filtered_ && open_->second.find('X') != std::string::npos)) {
      records.push_back(std::to_string(open_->first) + ":" + open_->second);
    }
    open_.reset();
  }

  test::Chance& chance_;
  TextEncoding written_{};
  bool joined_ = false;
  bool filtered_ = false;
  std::optional<std::pair<std::uint64_t, std::string>> open_;
};

TEST(RecordAssemblerModelTest, HoweverBytesAreCutAndWhereverItStartsAgainTheRecordsAreTheSame) {
  for (const std::uint64_t seed : test::seeds(3000)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance chance(seed);
    const Model model(chance);
    RecordContext context;
    context.rules = model.rules;
    std::vector<std::string> records;
    const auto note = [&](FileOffset at, std::string_view text) {
      records.push_back(std::to_string(at.raw) + ":" + std::string(text));
    };
    std::optional<RecordAssembler> assembler;
    assembler.emplace(FileOffset{}, context);
    std::uint64_t stored_position = 0;
    std::size_t stored_records = 0;
    for (std::size_t at = 0; at < model.bytes.size();) {
      const auto piece = std::string_view(model.bytes).substr(at, chance.between(std::size_t{1}, std::size_t{60}));
      assembler->feed(as_bytes(piece), {}, note);
      at += piece.size();
      EXPECT_LE(assembler->position().raw, at);
      if (chance.with(0.3)) {  // a checkpoint
        stored_position = assembler->position().raw;
        stored_records = records.size();
      }
      if (chance.with(0.05)) {  // a crash
        records.resize(stored_records);
        at = stored_position;
        assembler.emplace(FileOffset{at}, context);
      }
    }
    assembler->finish(note);
    ASSERT_EQ(records, model.records);
    EXPECT_EQ(assembler->position().raw, model.bytes.size());
    EXPECT_EQ(context.counters.characters_replaced, 0);
  }
}

/// What a rule says depends on the lines of the record alone, so it makes no difference where one begins anew.
TEST(RecordAssemblerModelTest, WithAnyPresetRecordsAreTheSameWhereverItStartsAgain) {
  std::map<std::string, std::vector<std::string>> lines = {
      {"java", {"x.E: no", "\tat a.B.c(B.java:1)", "Caused by: x.F", "\t... 2 more", "INFO", ""}},
      {"python",
       {"Traceback (most recent call last):", "  File \"a.py\"", "KeyError: 1", "",
        "During handling of the above exception, another exception occurred:", "INFO: a b"}},
      {"go", {"panic: no", "[signal 1]", "", "goroutine 1 [running]:", "main.main()", "\t/a.go:1", "INFO"}},
      {"indent", {"a", " b", "\tc", ""}}};
  for (const std::uint64_t seed : test::seeds(2000)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance chance(seed);
    for (auto& [preset, pool] : lines) {
      std::string text;
      for (std::size_t i = chance.between(std::size_t{1}, std::size_t{40}); i > 0; --i)
        text += chance.one_of(pool) + "\n";
      RecordContext context;
      context.rules.multiline = std::make_shared<const MultilineRule>(*MultilineRule::preset(preset));
      context.rules.cut.max_bytes = chance.with(0.5) ? 120 : 1000;
      std::map<std::uint64_t, std::string> expected;
      RecordAssembler whole({}, context);
      whole.feed(as_bytes(text), {}, [&](FileOffset at, std::string_view record) { expected[at.raw] = record; });
      whole.finish([&](FileOffset at, std::string_view record) { expected[at.raw] = record; });
      std::string together;
      for (const auto& [at, record] : expected) together += record + "\n";
      EXPECT_EQ(together, text) << "no line is lost or moved";
      // At the start of any record, for a position is one.
      for (const auto& [start, record] : expected) {
        std::map<std::uint64_t, std::string> rest;
        const auto note = [&](FileOffset at, std::string_view found) { rest[at.raw] = found; };
        RecordAssembler again({start}, context);
        again.feed(as_bytes(std::string_view(text).substr(start)), {}, note);
        again.finish(note);
        EXPECT_EQ(rest, (std::map<std::uint64_t, std::string>(expected.find(start), expected.end()))) << preset;
      }
    }
  }
}

}  // namespace
}  // namespace fantail
