#include "tests/support/seeded.h"
#include "tests/unit/file_sink_fixture.h"

namespace fantail {
namespace {

/// A FileSink that makes something of lines.
class FileSinkRecordsTest : public FileSinkTest {
 protected:
  void join_on(const char* start, Duration timeout = 1h) {
    rules.multiline = std::make_shared<const MultilineRule>(
        MultilineRule::custom(*Regex::compile("--multiline-start", start), std::nullopt));
    rules.multiline_timeout = timeout;
    restart();
  }
  void exclude(const char* regex) {
    rules.filter = std::make_shared<RecordFilter>(RecordFilter{{}, {*Regex::compile("--exclude-line", regex)}});
    restart();
  }
};

TEST_F(FileSinkRecordsTest, ARecordInTwoHalvesOverACrashIsThereOnce) {
  join_on("^S");
  const StreamMeta& a = stream(1);
  open(a);
  ASSERT_TRUE(write(a, 0, "S1\nmore\nS2\nmo"));
  commit();
  ASSERT_TRUE(write(a, 13, "re\nS3\n"));
  EXPECT_EQ(in(name), "S1\nmore\nS2\nmore\n");

  restart();
  EXPECT_EQ(open(a), 8) << "where the record begins that was open";
  ASSERT_TRUE(write(a, 8, "S2\nmore\nS3\n"));
  ASSERT_TRUE(sink->seal(a, {19}));
  EXPECT_EQ(in(name), "S1\nmore\nS2\nmore\nS3\n");
}

TEST_F(FileSinkRecordsTest, ALossEndsARecordAndIsNotFiltered) {
  join_on("^S");
  exclude("fantail|X");
  const StreamMeta& a = stream(1);
  open(a);
  ASSERT_TRUE(write(a, 0, "S1\nmo"));
  ASSERT_TRUE(sink->lose(a, {{5}, {100}}, wire::LossReason::kDeleted));
  ASSERT_TRUE(write(a, 100, "re\nS2 X\nS3\n"));
  ASSERT_TRUE(sink->seal(a, {111}));
  const std::string text = in(name);
  EXPECT_TRUE(text.starts_with("S1\nmo\n[fantail: bytes 5 to 100 ")) << text;
  EXPECT_TRUE(text.ends_with("]\nre\nS3\n")) << text;
  EXPECT_EQ(sink->counters().records_filtered, 1);
}

TEST_F(FileSinkRecordsTest, AnOpenRecordIsSettledByTime) {
  join_on("^S", 0s);
  const StreamMeta& a = stream(1);
  open(a);
  ASSERT_TRUE(write(a, 0, "S1\nmore\nunfin"));
  EXPECT_FALSE(sink->settled());
  ASSERT_TRUE(sink->flush(mono_now()));
  EXPECT_EQ(in(name), "S1\nmore\n");
  EXPECT_TRUE(sink->settled());
  commit();
  restart();
  EXPECT_EQ(open(a), 8);
}

TEST_F(FileSinkRecordsTest, JsonHasTheNewlinesAndTheOffsetOfTheFirstLine) {
  format = "jsonl";
  join_on("^S");
  const StreamMeta& a = stream(1);
  open(a);
  ASSERT_TRUE(write(a, 0, "S1\nS2\r\nm\nS3\n"));
  const std::string text = in(name);
  EXPECT_THAT(text, testing::HasSubstr("\"offset\":3,"));
  EXPECT_THAT(text, testing::HasSubstr(R"("line":"S2\r\nm"})"));
}

TEST_F(FileSinkRecordsTest, CrashesAtAnyMomentLeaveEachRecordOnce) {
  for (const std::uint64_t seed : test::seeds(60)) {
    SCOPED_TRACE(test::replay(seed));
    test::Chance chance(seed);
    std::string text;
    std::string expected;
    for (int i = 0; i < 60; ++i) {
      text += "S" + std::to_string(i) + "\n";
      expected += text.substr(text.rfind('S'));
      for (std::size_t more = chance.between(std::size_t{0}, std::size_t{4}); more > 0; --more) {
        text += "m" + std::to_string(more) + "\n";
        expected += "m" + std::to_string(more) + "\n";
      }
    }
    name = "out-" + std::to_string(seed) + ".log";
    join_on("^S");
    const StreamMeta& a = stream(1'000 + seed);
    std::uint64_t at = open(a);
    while (at < text.size()) {
      const auto piece = std::string_view(text).substr(at, chance.between(std::size_t{1}, std::size_t{40}));
      ASSERT_TRUE(write(a, at, piece));
      at += piece.size();
      if (chance.with(0.1)) commit();
      if (chance.with(0.1)) {
        restart();
        at = open(a);
      }
    }
    ASSERT_TRUE(sink->seal(a, {text.size()}));
    commit();
    EXPECT_EQ(in(name), expected);
    restart();
    EXPECT_EQ(open(a), text.size());
  }
}

}  // namespace
}  // namespace fantail
