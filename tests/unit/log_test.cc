#include "common/base/log.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <string>

namespace fantail {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class LogTest : public testing::Test {
 protected:
  LogTest() { log::set_up(log::Level::kInfo); }
  ~LogTest() override { log::set_up(log::Level::kInfo); }

  template <class Act>
  std::string written_by(Act act) {
    testing::internal::CaptureStderr();
    act();
    return testing::internal::GetCapturedStderr();
  }
};

TEST(LogLevelTest, IsReadByName) {
  EXPECT_EQ(log::level_from("debug"), log::Level::kDebug);
  EXPECT_EQ(log::level_from("info"), log::Level::kInfo);
  EXPECT_EQ(log::level_from("warn"), log::Level::kWarn);
  EXPECT_EQ(log::level_from("error"), log::Level::kError);
  EXPECT_EQ(log::level_from("off"), log::Level::kOff);
  EXPECT_EQ(log::level_from("INFO"), std::nullopt);
  EXPECT_EQ(log::level_from(""), std::nullopt);
}

TEST_F(LogTest, AnEventIsOneLineWithItsFieldsInTheOrderGiven) {
  const StreamId stream{1, 2};
  const auto text = written_by([&] {
    log::info("file found", {{"path", "/var/log/a"}, {"stream", stream}, {"offset", FileOffset{7}}, {"bytes", 15}});
  });
  EXPECT_THAT(text, HasSubstr(" info file found path=/var/log/a stream=" + to_string(stream)));
  EXPECT_THAT(text, EndsWith(" offset=7 bytes=15\n"));
}

TEST_F(LogTest, AnErrorIsToldByItsSentence) {
  const auto text = written_by([] { log::error("no", {{"error", Error{ErrorCode::kIo, "disk on fire"}}}); });
  EXPECT_THAT(text, HasSubstr(" error=\"disk on fire\"\n"));
}

TEST_F(LogTest, WhatComesFromOutsideCanForgeNeitherALineNorAField) {
  for (const std::string_view hostile :
       std::initializer_list<std::string_view>{"a\n2026-11-22T00:00:00.000Z info forged", "x bytes=1", "\"x", "a\\", "",
                                               "a=b", "\x1b[2J", "\r", "\x7f", std::string_view("a\0b", 3)}) {
    const auto text = written_by([&] { log::warn("event", {{"path", hostile}, {"bytes", 2}}); });
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
    EXPECT_TRUE(std::none_of(text.begin(), text.end() - 1, [](char c) {
      return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
    })) << text;
    EXPECT_THAT(text, HasSubstr(" path=\"")) << text;
    EXPECT_THAT(text, EndsWith("\" bytes=2\n"));
  }
  const auto quoted = written_by([] { log::warn("event", {{"path", "a\"b\\c\nd"}}); });
  EXPECT_THAT(quoted, EndsWith(" path=\"a\\\"b\\\\c\\x0ad\"\n"));
}

TEST_F(LogTest, ValuesThatNeedNoQuotesHaveNone) {
  const auto text = written_by([] { log::info("event", {{"topic", "web/zugriff-für-alle"}}); });
  EXPECT_THAT(text, EndsWith(" topic=web/zugriff-für-alle\n"));
}

TEST_F(LogTest, EventsBelowTheLevelAreNotWritten) {
  log::set_up(log::Level::kWarn);
  EXPECT_THAT(written_by([] { log::info("quiet"); }), IsEmpty());
  EXPECT_THAT(written_by([] { log::warn("loud"); }), Not(IsEmpty()));
  log::set_up(log::Level::kOff);
  EXPECT_THAT(written_by([] { log::error("quiet"); }), IsEmpty());
}

TEST_F(LogTest, AnAnswerToAPersonIsWrittenWhateverTheLevelIs) {
  log::set_up(log::Level::kOff);
  EXPECT_EQ(written_by([] { log::say("usage: fantail-producer"); }), "usage: fantail-producer\n");
}

TEST_F(LogTest, EventsGoAboveTheStatusLine) {
  const auto text = written_by([] {
    log::set_status_line("50 %");
    log::info("event");
    log::set_status_line("");
  });
  const auto event = text.find("event\n");
  ASSERT_NE(event, std::string::npos);
  EXPECT_THAT(text.substr(0, event), HasSubstr("50 %\r\033[K"));
  EXPECT_EQ(text.substr(event), "event\n50 %\r\033[K");
}

class RepeatedTest : public testing::Test {
 protected:
  std::optional<std::uint64_t> at(Duration time) { return repeated.occurred(start + time); }
  const MonoTime start = MonoTime{} + 1h;
  log::Repeated repeated{10s};
};

TEST_F(RepeatedTest, TheFirstOccurrenceIsLoggedAtOnce) { EXPECT_EQ(at(0s), 1u); }

TEST_F(RepeatedTest, AFloodIsLoggedOncePerIntervalAndNoneOfItIsUncounted) {
  std::uint64_t told = 0;
  int lines = 0;
  for (int ms = 0; ms <= 60'000; ++ms) {
    if (const auto n = at(std::chrono::milliseconds(ms))) {
      told += *n;
      ++lines;
    }
  }
  EXPECT_EQ(lines, 7);
  EXPECT_EQ(told, 60'001u);
}

TEST_F(RepeatedTest, OccurrencesThatWereHeldBackAreToldWithTheNextOne) {
  EXPECT_EQ(at(0s), 1u);
  EXPECT_EQ(at(3s), std::nullopt);
  EXPECT_EQ(at(9999ms), std::nullopt);
  EXPECT_EQ(at(10s), 3u);
  EXPECT_EQ(at(1h), 1u);
}

}  // namespace
}  // namespace fantail
