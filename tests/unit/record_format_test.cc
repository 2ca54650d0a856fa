#include "consumer/record_format.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/base/text.h"

namespace fantail {
namespace {

using testing::HasSubstr;

constexpr const char* kTime = "2026-11-22T17:04:05.123456Z";

class RecordFormatTest : public testing::Test {
 protected:
  RecordFormatTest() {
    meta.stream = {1, 2};
    meta.node_name = "host\"1\"";
    meta.node_dir = "host_1";
    meta.topic = "web/access";
    meta.path = "/var/log/a \\ b.log";
  }
  std::string record(const std::string& format, std::string_view line, std::uint64_t offset = 7) {
    const auto parsed = RecordFormat::parse(format);
    EXPECT_TRUE(parsed) << parsed.error().context;
    std::string out;
    parsed->append(out, parsed->prepare(meta), {offset}, kTime, line);
    return out;
  }
  nlohmann::json json(std::string_view line) {
    const std::string out = record("jsonl", line);
    EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 1) << "one record, one line";
    return nlohmann::json::parse(out);
  }
  std::string loss(const std::string& format) {
    const auto parsed = RecordFormat::parse(format);
    std::string out;
    parsed->append_loss(out, parsed->prepare(meta), {{10}, {20}}, kTime, wire::LossReason::kDeleted);
    return out;
  }
  static std::string problem(const std::string& format) {
    const auto parsed = RecordFormat::parse(format);
    return parsed ? "" : parsed.error().context;
  }
  StreamMeta meta;
};

TEST_F(RecordFormatTest, RawIsTheLine) {
  EXPECT_EQ(record("raw", "a line"), "a line\n");
  EXPECT_TRUE(RecordFormat::parse("raw")->raw());
}

TEST_F(RecordFormatTest, JsonTellsWhereTheLineIsFrom) {
  const auto j = json("a line");
  EXPECT_EQ(j["node"], meta.node_name);
  EXPECT_EQ(j["topic"], meta.topic);
  EXPECT_EQ(j["path"], meta.path);
  EXPECT_EQ(j["stream"], to_string(meta.stream));
  EXPECT_EQ(j["offset"], 7);
  EXPECT_EQ(j["time"], kTime);
  EXPECT_EQ(j["line"], "a line");
}

TEST_F(RecordFormatTest, EveryAsciiCharacterSurvivesJsonAtEveryPlaceInALine) {
  for (int c = 0; c < 128; ++c) {
    for (std::size_t place = 0; place < 20; ++place) {
      std::string line(19, 'x');
      line.insert(place, 1, static_cast<char>(c));
      ASSERT_EQ(json(line)["line"], line) << "character " << c << " at " << place;
    }
  }
}

TEST_F(RecordFormatTest, Utf8SurvivesJson) {
  for (const char* line : {"äöü €", "日本語のログ", "\xF0\x9F\x98\x80", "mixed ascii ascii ascii é ascii ascii"}) {
    EXPECT_EQ(json(line)["line"], line);
  }
}

TEST_F(RecordFormatTest, BytesThatAreNoUtf8TravelAsBase64) {
  for (const std::string& line :
       {std::string("\xFF"), std::string("ab\xC3"), std::string("\xC0\xAF"), std::string("\xED\xA0\x80"),
        std::string("\xF5\x80\x80\x80"), std::string("plain plain \x80 plain")}) {
    EXPECT_FALSE(is_utf8(line));
    const auto j = json(line);
    EXPECT_FALSE(j.contains("line"));
    EXPECT_TRUE(j["line_base64"].is_string());
  }
  EXPECT_EQ(json("\xFF")["line_base64"], "/w==");
  EXPECT_EQ(json("\xFF\xFE")["line_base64"], "//4=");
  EXPECT_EQ(json("\xFF\xFE\xFD")["line_base64"], "//79");
}

TEST_F(RecordFormatTest, HostileNamesCannotBreakTheJson) {
  meta.path = "/log/\xFF\"},{\"x\":\"\n";
  meta.topic = "a\nb";
  const auto j = json("line");
  EXPECT_EQ(j["topic"], "a\nb");
  EXPECT_TRUE(j.contains("path_base64"));
}

TEST_F(RecordFormatTest, ATemplatePutsFieldsWhereTheyAreWanted) {
  EXPECT_EQ(record("{node} {topic} {path} {basename} {offset} {line}", "x"),
            "host\"1\" web/access /var/log/a \\ b.log a \\ b.log 7 x\n");
  EXPECT_EQ(record("{time}|{date}|{stream}", "x"), std::string(kTime) + "|2026-11-22|" + to_string(meta.stream) + "\n");
  EXPECT_EQ(record("{{{line}}}\\t\\n.", "x"), "{x}\t\n.\n");
}

TEST_F(RecordFormatTest, AFieldInALineIsNoField) { EXPECT_EQ(record("{line}", "{path}"), "{path}\n"); }

TEST_F(RecordFormatTest, MistakesAreNamedWithWhatThereIs) {
  EXPECT_THAT(problem("{nonsense}"), AllOf(HasSubstr("'{nonsense}'"), HasSubstr("{line}")));
  EXPECT_THAT(problem("{line"), HasSubstr("'{' without '}'"));
  EXPECT_THAT(problem("json"), HasSubstr("jsonl"));
  EXPECT_THAT(problem(""), HasSubstr("raw"));
}

TEST_F(RecordFormatTest, ALossIsVisibleInEveryFormat) {
  EXPECT_THAT(loss("raw"), AllOf(HasSubstr("bytes 10 to 20"), HasSubstr("are lost"), HasSubstr("deleted")));
  EXPECT_THAT(loss("{offset}: {line}"), AllOf(testing::StartsWith("10: "), HasSubstr("are lost")));
  const auto j = nlohmann::json::parse(loss("jsonl"));
  EXPECT_EQ(j["loss"]["from"], 10);
  EXPECT_EQ(j["loss"]["to"], 20);
  EXPECT_THAT(j["loss"]["reason"].get<std::string>(), HasSubstr("deleted"));
}

TEST_F(RecordFormatTest, PathTemplatesNeverLeaveTheirPlace) {
  meta.topic = "../../etc";
  meta.path = "/../../etc/passwd/..";
  meta.node_dir = "host";
  for (const char* text : {"/out/{topic}.log", "/out/{path}", "/out/{basename}", "/out/{node}/{topic}/{path}/x"}) {
    const std::string path = PathTemplate::parse(text)->expand(meta, {});
    EXPECT_EQ(("/" + path + "/").find("/../"), std::string::npos) << path;
    EXPECT_THAT(path, testing::StartsWith("/out/"));
  }
}

TEST_F(RecordFormatTest, PathTemplatesKnowTheDay) {
  const auto path = PathTemplate::parse("/out/{date}.log");
  EXPECT_TRUE(path->dated());
  EXPECT_EQ(path->expand(meta, {0}), "/out/1970-01-01.log");
  EXPECT_FALSE(PathTemplate::parse("/out/{topic}.log")->dated());
  EXPECT_FALSE(PathTemplate::parse("/out/{line}.log"));
}

}  // namespace
}  // namespace fantail
