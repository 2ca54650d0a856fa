#include "pipeline/result_journal.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>

#include <fstream>

#include "tests/support/scratch_directory.h"

namespace fantail::pipeline {
namespace {

using testing::HasSubstr;

std::string line_of(int number, const std::string& result = "1") {
  return R"({"id":"t:)" + std::to_string(number) + R"(","result":)" + result + "}";
}

class ResultJournalTest : public testing::Test {
 protected:
  ResultJournal open() {
    auto journal = ResultJournal::open(directory.path(), "t", 1);
    EXPECT_TRUE(journal) << journal.error().context;
    return std::move(*journal);
  }
  void append(const std::string& bytes) {
    std::ofstream(directory.path() / "t.jsonl", std::ios::app | std::ios::binary) << bytes;
  }
  test::ScratchDirectory directory;
};

TEST_F(ResultJournalTest, TheSecondResultOfAJobIsRefusedOverRestarts) {
  StreamId stream;
  {
    auto journal = open();
    EXPECT_TRUE(journal.add(7, line_of(7)));
    EXPECT_FALSE(journal.add(7, line_of(7, "2"))) << "before it is written, too";
    EXPECT_TRUE(journal.add(3, line_of(3)));
    ASSERT_TRUE(journal.write());
    stream = journal.stream();
  }
  auto journal = open();
  EXPECT_EQ(journal.stream(), stream);
  EXPECT_FALSE(journal.add(7, line_of(7)));
  EXPECT_EQ(journal.count(), 2U);
  EXPECT_EQ(journal.number_at(0), 7U);
  EXPECT_EQ(journal.number_at(1), 3U);
  EXPECT_EQ(journal.line(3).value(), line_of(3));
  EXPECT_EQ(journal.line(4).error().code, ErrorCode::kNotFound);
}

TEST_F(ResultJournalTest, AnEndThatWasCutOffIsRemovedAndTheJobMayComeAgain) {
  {
    auto journal = open();
    journal.add(1, line_of(1));
    ASSERT_TRUE(journal.write());
  }
  append(R"({"id":"t:2","resu)");
  auto journal = open();
  EXPECT_EQ(journal.count(), 1U);
  EXPECT_TRUE(journal.add(2, line_of(2)));
  ASSERT_TRUE(journal.write());
  EXPECT_EQ(journal.line(2).value(), line_of(2));
  EXPECT_EQ(journal.end().raw, 2 * (line_of(1).size() + 1));
}

TEST_F(ResultJournalTest, AForeignLineIsNamedWithItsPlace) {
  append(line_of(1) + "\nwhat is this?\n" + line_of(2) + "\n");
  const auto journal = ResultJournal::open(directory.path(), "t", 1);
  ASSERT_FALSE(journal);
  EXPECT_THAT(journal.error().context, HasSubstr("byte " + std::to_string(line_of(1).size() + 1)));
}

TEST_F(ResultJournalTest, OnAFullDiskNothingWasTaken) {
  auto journal = open();
  EXPECT_TRUE(journal.add(1, line_of(1)));
  EXPECT_TRUE(journal.add(2, line_of(2)));
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit none{0, before.rlim_max};
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &none), 0);
  EXPECT_FALSE(journal.write());
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, handler);
  EXPECT_EQ(journal.count(), 0U);
  EXPECT_FALSE(journal.unwritten());
  EXPECT_TRUE(journal.add(1, line_of(1))) << "it may come again";
}

TEST_F(ResultJournalTest, NumbersAreReadFromIds) {
  EXPECT_EQ(number_of("t:12", "t"), 12U);
  for (const char* bad : {"t:0", "t:", "t", "u:1", "t:1x", "t:-1", "tt:1", "t:99999999999999999999999"}) {
    EXPECT_FALSE(number_of(bad, "t")) << bad;
  }
}

}  // namespace
}  // namespace fantail::pipeline
