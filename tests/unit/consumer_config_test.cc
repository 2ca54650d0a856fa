#include <gmock/gmock.h>

#include <cstdlib>

#include "consumer/config.h"

namespace fantail {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// The relay is not beside this test, and any program does for configurations.
[[maybe_unused]] const int kRelayGiven = ::setenv("FANTAIL_RELAY", "/bin/true", 1);

TEST(ConsumerConfigTest, OneControlLinkListensAtOneAddress) {
  ConsumerConfig config;
  config.endpoints = {"tcp://127.0.0.1:6000"};
  EXPECT_THAT(config.problems(), IsEmpty());
  config.endpoints.emplace_back("tcp://127.0.0.1:7000");
  EXPECT_THAT(config.problems(),
              ElementsAre(AllOf(HasSubstr("7000"), HasSubstr("one control link"), HasSubstr("give one --endpoint"))));
}

TEST(ConsumerConfigTest, SeveralProducersThatListenAreFine) {
  ConsumerConfig config;
  config.connect = {"tcp://127.0.0.1:6000", "tcp://127.0.0.1:7000"};
  config.endpoints = {"tcp://127.0.0.1:8000"};
  config.control = "tcp://127.0.0.1:8500";
  EXPECT_THAT(config.problems(), IsEmpty());
}

TEST(ConsumerConfigTest, AControlAddressWhereNobodyConnectsIsRefused) {
  ConsumerConfig config;
  config.control = "tcp://127.0.0.1:8500";
  EXPECT_THAT(config.problems(), IsEmpty()) << "at the default endpoint";
  config.connect = {"tcp://127.0.0.1:6000"};
  EXPECT_THAT(config.problems(), ElementsAre(AllOf(HasSubstr("--control"), HasSubstr("without --endpoint"))));
  config.connect = {};
  config.transport = "epgm";
  EXPECT_THAT(config.problems(), ElementsAre(AllOf(HasSubstr("--control"), HasSubstr("on epgm"))));
}

TEST(ConsumerConfigTest, ADirectoryIsNoFileToWriteTo) {
  const std::string directory = testing::TempDir();
  ConsumerConfig config;
  config.outputs = {"file:" + directory};
  EXPECT_THAT(config.problems(),
              ElementsAre(AllOf(HasSubstr(directory), HasSubstr("is a directory"), HasSubstr("mirror:"))));
  config.outputs = {"file:not-there-yet/"};
  EXPECT_THAT(config.problems(), ElementsAre(HasSubstr("not-there-yet/all.log")));
  config.outputs = {"file:/dev/null", "mirror:" + directory};
  EXPECT_THAT(config.problems(), IsEmpty());
}

TEST(ConsumerConfigTest, AnOutputGivenTwiceIsRefusedHoweverItIsWritten) {
  ConsumerConfig config;
  config.outputs = {
      "mirror:somewhere/d", "mirror:./somewhere/x/../d/", "file:a.log", "stdout", "file:./a.log", "stdout:"};
  EXPECT_THAT(config.problems(), ElementsAre(HasSubstr("x/../d/"), HasSubstr("./a.log"), HasSubstr("stdout:")));
  config.outputs = {"mirror:", "file:"};
  EXPECT_THAT(config.problems(), ElementsAre(HasSubstr("a directory"), HasSubstr("a file")));
}

TEST(ConsumerConfigTest, AnInterfaceThatWentAwayIsAnErrorAndNoMore) {
  ConsumerConfig config;
  config.transport = "epgm";
  config.multicast.interface = "nosuch0";
  const auto multicast = config.epgm_config();
  ASSERT_FALSE(multicast);
  EXPECT_THAT(multicast.error().context, HasSubstr("nosuch0"));
}

TEST(ConsumerConfigTest, EachMistakeInTheRulesForLinesIsTold) {
  ConsumerConfig config;
  config.lines.max_line = "1MiB:drop";
  config.lines.multiline_start = "(a";
  config.lines.multiline_continue = "[z";
  config.lines.include = {"x+", "x**"};
  config.lines.exclude = {""};
  EXPECT_THAT(config.problems(),
              ElementsAre(AllOf(HasSubstr("--max-line '1MiB:drop'"), HasSubstr("truncate")),
                          AllOf(HasSubstr("--multiline-start '(a'"), HasSubstr("missing )"), HasSubstr("RE2")),
                          AllOf(HasSubstr("--multiline-continue '[z'"), HasSubstr("missing ]")),
                          AllOf(HasSubstr("--include-line 'x**'"), HasSubstr("bad repetition operator")),
                          AllOf(HasSubstr("--exclude-line ''"), HasSubstr("every line"))));
  for (const char* text : {"", "split", "63", "17M", "-1", "1K:", "1K:split:skip", "1X"}) {
    config.lines = {};
    config.lines.max_line = text;
    EXPECT_THAT(config.problems(), ElementsAre(HasSubstr("--max-line"))) << text;
  }
  config.lines = {};
  config.lines.multiline = "java";
  config.lines.multiline_start = "^S";
  EXPECT_THAT(config.problems(), ElementsAre(AllOf(HasSubstr("--multiline 'java'"), HasSubstr("leave it out"))));
}

TEST(ConsumerConfigTest, MirrorsHaveNoLines) {
  ConsumerConfig config;
  config.outputs = {"mirror:somewhere"};
  config.lines.encoding = "utf-16le";
  config.lines.exclude = {"x"};
  EXPECT_THAT(config.problems(),
              ElementsAre(AllOf(HasSubstr("--encoding"), HasSubstr("no lines")), HasSubstr("--exclude-line")));
  config.outputs.emplace_back("file:some.log");
  EXPECT_THAT(config.problems(), IsEmpty());
}

TEST(ConsumerConfigTest, RawLinesStayAsTheyAreUntilAFlagSpeaksOfLines) {
  LineOptions lines;
  EXPECT_TRUE(lines.rules(true).plain());
  EXPECT_TRUE(lines.rules(false).cut.strip_carriage_return);
  lines.max_line = "4K:truncate";
  EXPECT_TRUE(lines.rules(true).cut.strip_carriage_return);
  EXPECT_EQ(lines.rules(true).cut.max_bytes, 4096);
  EXPECT_EQ(lines.rules(true).cut.long_lines, LongLines::kTruncate);
  lines.crlf = "keep";
  EXPECT_FALSE(lines.rules(true).cut.strip_carriage_return);
  EXPECT_FALSE(lines.rules(false).cut.strip_carriage_return);
  lines = {};
  lines.crlf = "strip";
  EXPECT_FALSE(lines.rules(true).plain());
}

}  // namespace
}  // namespace fantail
