#include "producer/status_report.h"

#include <fcntl.h>
#include <gmock/gmock.h>

#include <algorithm>

#include "common/base/table.h"
#include "common/json/json.h"
#include "common/json/report.h"
#include "producer/open_files.h"

namespace fantail {
namespace {

class StatusReportTest : public testing::Test {
 protected:
  StatusReportTest() {
    stream.info.stream = {1, 1};
    stream.info.topic = "web/access";
    stream.info.path = stream.current_path = "/log/a";
    stream.info.base = {100};
    stream.info.sent = {900};
    stream.info.head = {1000};
    ledger.seen("here", {}, {}, true);
    ledger.commit("here", stream.info.stream, {1000});
    ledger.seen("away", {{"web"}, 0, 1}, {}, false);
    ledger.seen("of other topics", {{"mail"}, 0, 1}, {}, false);
  }
  Json totals() {
    StatusTotals out(ledger);
    out.add(stream);
    return out.report({});
  }
  static Json consumer(const Json& summary, const std::string& name) {
    for (const Json& one : summary.at("consumers")) {
      if (one.at("consumer") == name) return one;
    }
    return {};
  }

  StreamState stream;
  CommitLedger ledger;
};

TEST_F(StatusReportTest, WhoLacksBytesIsNamedWithTheRange) {
  const Json report = stream_report(stream, ledger);
  EXPECT_EQ(report.at("waiting"), Json::parse(R"([{"connected":false,"consumer":"away","from":100,"to":1000}])"));
  EXPECT_EQ(report.at("behind"), 900);
  EXPECT_EQ(report.at("committed"), 100);
}

TEST_F(StatusReportTest, WithoutDurableConsumersWhatIsNotSentIsBehind) {
  ledger = {};
  const Json report = stream_report(stream, ledger);
  EXPECT_EQ(report.at("behind"), 100);
  EXPECT_TRUE(report.at("committed").is_null());
}

TEST_F(StatusReportTest, OnlyADeletedReadableFileThatSomebodyLacksIsHeld) {
  EXPECT_EQ(totals().at("held_files"), 0);
  stream.deleted_for = 5s;
  EXPECT_STREQ(stream.word(ledger), "held");
  EXPECT_EQ(totals().at("held_bytes"), 900);
  EXPECT_EQ(consumer(totals(), "away").at("held_bytes"), 900);
  EXPECT_EQ(consumer(totals(), "here").at("held_bytes"), 0);
  EXPECT_EQ(consumer(totals(), "of other topics").at("streams"), 0);
  ledger.commit("away", stream.info.stream, {1000});
  EXPECT_STREQ(stream.word(ledger), "deleted");
  stream.gone = wire::LossReason::kHoldExceeded;
  EXPECT_STREQ(stream.word(ledger), "gone");
  EXPECT_EQ(totals().at("held_files"), 0);
}

TEST_F(StatusReportTest, APathThatIsNotTextIsEncoded) {
  stream.info.path = "/log/\xFF";
  const Json report = stream_report(stream, ledger);
  EXPECT_FALSE(report.contains("path"));
  EXPECT_EQ(text_in(report, "path"), "/log/\xFF");
  EXPECT_NO_THROW(to_text(report));
}

TEST(MetricsTextTest, LabelsAreEscaped) {
  MetricsText out;
  out.value("m", {{"a", "x\"y\\z\n"}, {"b", "2"}}, 9007199254740992.0);
  EXPECT_EQ(out.text(), "m{a=\"x\\\"y\\\\z\\n\",b=\"2\"} 9007199254740992\n");
}

TEST(TableTest, ColumnsAreAlignedAndControlCharactersShown) {
  Table table({{"NAME"}, {"N", true}, {"PATH"}});
  table.add({"a", "10", "/x"});
  table.add({"long", "5", "/y\n"});
  EXPECT_EQ(table.text(), "NAME   N  PATH\na     10  /x\nlong   5  /y\\x0a\n");
}

TEST(OpenFilesTest, SomeDescriptorsAreLeftToOthers) {
  EXPECT_EQ(OpenFiles::limit_for(64, 30), 14U);
  EXPECT_EQ(OpenFiles::limit_for(1024, 30), 1024U - 30 - 256);
  EXPECT_EQ(OpenFiles::limit_for(1'000'000, 30), 1'000'000U - 30 - 512);
  EXPECT_GT(OpenFiles::limit_for(20, 30), 0U);
}

TEST(OpenFilesTest, RoomIsMadeBeforeOneTooMany) {
  OpenFiles files(2);
  int asked = 0;
  files.on_full([&] { ++asked; });
  const auto open = [&](std::uint64_t id) {
    if (!files.may_open()) return false;
    files.opened(StreamId{0, id});
    return true;
  };
  EXPECT_TRUE(open(1));
  EXPECT_TRUE(open(2));
  EXPECT_EQ(asked, 0);
  EXPECT_TRUE(open(3));
  EXPECT_EQ(asked, 1);
  EXPECT_TRUE(files.too_many());
  files.closed(StreamId{0, 2});
  EXPECT_FALSE(files.too_many());
  for (std::uint64_t id = 4; open(id);) ++id;
  EXPECT_LT(files.count(), 10U) << "nobody makes room";
}

TEST(OpenFilesTest, GuestsCountAndLeaveRoomForStreams) {
  OpenFiles files(4);
  const auto descriptor = [] { return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); };
  std::vector<OpenFiles::Guest> guests;
  for (int n = 0; n < 5; ++n) guests.push_back(files.keep(descriptor()));
  EXPECT_EQ(std::count_if(guests.begin(), guests.end(), [](const auto& guest) { return bool{guest}; }), 2)
      << "half of them";
  EXPECT_EQ(files.in_use(), 2U);
  EXPECT_FALSE(files.keep(UniqueFd{}));

  OpenFiles::Guest& first = guests.front();
  const UniqueFd fd = first.take();
  EXPECT_TRUE(fd);
  EXPECT_FALSE(first);
  EXPECT_EQ(files.in_use(), 1U);
  first = files.keep(descriptor());
  EXPECT_EQ(files.in_use(), 2U);
  guests.clear();
  EXPECT_EQ(files.in_use(), 0U);

  for (std::uint64_t id = 0; id < 4; ++id) files.opened(StreamId{0, id});
  EXPECT_FALSE(files.keep(descriptor())) << "streams have them all";
}

}  // namespace
}  // namespace fantail
