#include "producer/discovery.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>

#include "common/base/log.h"
#include "tests/support/scratch_directory.h"

namespace fantail {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

/// Files below a directory of the test's own; names are relative to it.
class DiscoveryTest : public testing::Test {
 protected:
  DiscoveryTest() { log::set_up(log::Level::kOff); }
  ~DiscoveryTest() override { log::set_up(log::Level::kInfo); }

  void look_for(std::vector<std::string> patterns, std::vector<std::string> excludes = {}, bool poll = false) {
    std::vector<Selection> selections;
    for (const auto& pattern : patterns) selections.push_back({*Glob::parse(files / pattern), "topic of " + pattern});
    std::vector<Glob> without;
    for (const auto& pattern : excludes) without.push_back(*Glob::parse(files / pattern));
    discovery.emplace(*Discovery::open(std::move(selections), std::move(without), poll));
  }
  std::vector<std::string> scan() {
    std::vector<std::string> found;
    matched = discovery->scan([&](const std::string& path, const Selection&) { found.push_back(relative(path)); });
    return found;
  }
  std::string relative(const std::string& path) const {
    return fs::path(path).lexically_relative(files.path()).string();
  }
  void touch(const std::string& name) {
    fs::create_directories(fs::path(files / name).parent_path());
    test::append(files / name, "x");
  }
  /// Reads events until `condition` holds, or none have come for long enough to be sure that none will.
  template <class Condition>
  bool changes_until(const Condition& condition) {
    const MonoTime deadline = mono_now() + 5s;
    while (!condition() && mono_now() < deadline) discovery->read_events(changes);
    return condition();
  }
  bool touched(const std::string& name) {
    return changes_until([&] { return changes.touched.contains(files / name); });
  }
  bool arrived(const std::string& name) {
    return changes_until([&] { return changes.arrived.contains(files / name); });
  }
  bool rescan_wanted() {
    return changes_until([&] { return changes.rescan; });
  }

  test::ScratchDirectory files;
  std::optional<Discovery> discovery;
  Discovery::Changes changes;
  std::vector<std::size_t> matched;
};

TEST_F(DiscoveryTest, FindsWhatMatches) {
  touch("a.log");
  touch("a.txt");
  touch("sub/b.log");
  look_for({"*.log"});
  EXPECT_THAT(scan(), ElementsAre("a.log"));
  EXPECT_THAT(matched, ElementsAre(1));
  look_for({"**/*.log"});
  EXPECT_THAT(scan(), UnorderedElementsAre("a.log", "sub/b.log"));
}

TEST_F(DiscoveryTest, TheFirstPatternThatTakesAFileNamesItsTopic) {
  touch("a.log");
  look_for({"a.*", "*.log"});
  EXPECT_THAT(scan(), ElementsAre("a.log"));
  EXPECT_THAT(matched, ElementsAre(1, 0));
  EXPECT_EQ(discovery->selection_of(files / "a.log")->topic, "topic of a.*");
  EXPECT_EQ(discovery->selection_of(files / "b.txt"), nullptr);
}

TEST_F(DiscoveryTest, ExcludedFilesAndDirectoriesAreNotFound) {
  touch("a.log");
  touch("debug.log");
  touch("cache/b.log");
  look_for({"**/*.log"}, {"debug*", "cache"});
  EXPECT_THAT(scan(), ElementsAre("a.log"));
}

TEST_F(DiscoveryTest, OnlyRegularFilesAndLinksToThemCount) {
  touch("real");
  fs::create_directory(files / "directory.log");
  fs::create_symlink(files / "real", files / "link.log");
  fs::create_symlink(files / "nowhere", files / "dangling.log");
  ASSERT_EQ(::mkfifo((files / "pipe.log").c_str(), 0600), 0);
  look_for({"*.log"});
  EXPECT_THAT(scan(), ElementsAre("link.log"));
}

TEST_F(DiscoveryTest, LinksInCirclesEnd) {
  touch("sub/a.log");
  fs::create_directory_symlink(files.path(), files / "sub/up");
  look_for({"**/*.log"});
  EXPECT_THAT(scan(), Contains("sub/a.log"));
}

TEST_F(DiscoveryTest, ADirectoryThatOnePatternReachesThroughALinkIsFoundUnderItsNameForAnother) {
  touch("elsewhere/a.log");
  touch("elsewhere/a.txt");
  fs::create_directory(files / "links");
  fs::create_directory_symlink(files / "elsewhere", files / "links/here");
  look_for({"links/**/*.log", "elsewhere/*.txt"});
  EXPECT_THAT(scan(), UnorderedElementsAre("links/here/a.log", "elsewhere/a.txt"));
  EXPECT_THAT(matched, ElementsAre(1, 1));
  look_for({"link*/*/*.log", "else*/*.txt"});
  EXPECT_THAT(scan(), UnorderedElementsAre("links/here/a.log", "elsewhere/a.txt"));
}

TEST_F(DiscoveryTest, ADirectoryIsFoundWhereThePatternTakesItsFilesWhateverLinkLeadsThereAtFirst) {
  touch("x/b/logs/a.log");
  fs::create_directory_symlink(files / "x/b/logs", files / "x/a");
  fs::create_directory_symlink(files / "x/b/logs", files / "x/c");
  look_for({"x/*/logs/*.log"});
  EXPECT_THAT(scan(), ElementsAre("x/b/logs/a.log"));
}

TEST_F(DiscoveryTest, WhatTwoPatternsTakeIsFoundOnce) {
  touch("sub/a.log");
  look_for({"**/*.log", "sub/*.log", "sub/*"});
  EXPECT_THAT(scan(), ElementsAre("sub/a.log"));
  EXPECT_THAT(matched, ElementsAre(1, 0, 0));
}

TEST_F(DiscoveryTest, ADirectoryWithTwoNamesTellsOfChangesByBoth) {
  touch("real/a.log");
  fs::create_directory_symlink(files / "real", files / "link");
  look_for({"link/*.log", "real/*.txt"});
  scan();
  touch("real/b.log");
  EXPECT_TRUE(arrived("link/b.log"));
  touch("real/b.txt");
  EXPECT_TRUE(arrived("real/b.txt"));
  fs::rename(files / "real/b.log", files / "real/b.old");
  EXPECT_TRUE(arrived("link/b.old"));
  EXPECT_EQ(changes.origins[files / "link/b.old"], files / "link/b.log");

  fs::remove(files / "link");
  scan();
  changes = {};
  touch("real/c.txt");
  EXPECT_TRUE(arrived("real/c.txt"));
  EXPECT_FALSE(changes.arrived.contains(files / "link/c.txt"));
  EXPECT_FALSE(discovery->sees(files / "link/c.log"));
}

TEST_F(DiscoveryTest, ANewLinkToADirectoryAsksForAScanThatFindsItsFiles) {
  touch("elsewhere/a.log");
  fs::create_directory(files / "x");
  look_for({"x/*/*.log"});
  EXPECT_THAT(scan(), IsEmpty());
  fs::create_directory_symlink(files / "elsewhere", files / "x/link");
  EXPECT_TRUE(rescan_wanted());
  EXPECT_THAT(scan(), ElementsAre("x/link/a.log"));
  touch("elsewhere/a.log");
  EXPECT_TRUE(touched("x/link/a.log"));
}

TEST_F(DiscoveryTest, ALinkToADirectoryThatLeadsElsewhereAsksForAScan) {
  touch("v1/logs/a.log");
  touch("v2/logs/b.log");
  fs::create_directory_symlink("v1", files / "current");
  look_for({"current/logs/*.log"});
  EXPECT_THAT(scan(), ElementsAre("current/logs/a.log"));
  discovery->check_links(changes);
  EXPECT_FALSE(changes.rescan);

  fs::remove(files / "current");
  fs::create_directory_symlink("v2", files / "current");
  discovery->check_links(changes);
  EXPECT_TRUE(changes.rescan);
  EXPECT_THAT(scan(), ElementsAre("current/logs/b.log"));
  touch("v2/logs/c.log");
  EXPECT_TRUE(arrived("current/logs/c.log"));
}

TEST_F(DiscoveryTest, TellsOfNewFiles) {
  look_for({"*.log"});
  scan();
  touch("a.log");
  EXPECT_TRUE(arrived("a.log"));
}

TEST_F(DiscoveryTest, TellsOfGrowthWithoutCallingItAnArrival) {
  touch("a.log");
  look_for({"*.log"});
  scan();
  touch("a.log");
  EXPECT_TRUE(touched("a.log"));
  EXPECT_THAT(changes.arrived, IsEmpty());
}

TEST_F(DiscoveryTest, TellsOfBothEndsOfARename) {
  touch("a.log");
  look_for({"*.log"});
  scan();
  fs::rename(files / "a.log", files / "a.log.1");
  EXPECT_TRUE(arrived("a.log.1"));
  EXPECT_TRUE(touched("a.log"));
  EXPECT_FALSE(changes.arrived.contains(files / "a.log"));
}

TEST_F(DiscoveryTest, TellsOfDeletion) {
  touch("a.log");
  look_for({"*.log"});
  scan();
  fs::remove(files / "a.log");
  EXPECT_TRUE(touched("a.log"));
}

TEST_F(DiscoveryTest, ANewDirectoryAsksForAScanThatFindsItsFiles) {
  look_for({"**/*.log"});
  scan();
  touch("new/a.log");
  EXPECT_TRUE(rescan_wanted());
  EXPECT_THAT(scan(), ElementsAre("new/a.log"));
  touch("new/a.log");
  EXPECT_TRUE(touched("new/a.log"));
}

TEST_F(DiscoveryTest, ADirectoryThatDoesNotExistYetIsSeenToCome) {
  look_for({"later/deep/*.log"});
  EXPECT_THAT(scan(), IsEmpty());
  fs::create_directory(files / "later");
  EXPECT_TRUE(rescan_wanted());
  scan();
  changes = {};
  touch("later/deep/a.log");
  EXPECT_TRUE(rescan_wanted());
  EXPECT_THAT(scan(), ElementsAre("later/deep/a.log"));
}

TEST_F(DiscoveryTest, ADirectoryThatIsReplacedIsWatchedAnew) {
  touch("sub/a.log");
  look_for({"sub/*.log"});
  scan();
  fs::rename(files / "sub", files / "old");
  touch("sub/b.log");
  EXPECT_TRUE(rescan_wanted());
  EXPECT_THAT(scan(), ElementsAre("sub/b.log"));
  changes = {};
  touch("sub/b.log");
  EXPECT_TRUE(touched("sub/b.log"));
}

TEST_F(DiscoveryTest, GrowthBehindALinkIsSeen) {
  touch("elsewhere/real");
  fs::create_directory(files / "links");
  fs::create_symlink(files / "elsewhere/real", files / "links/a.log");
  look_for({"links/*.log"});
  scan();
  touch("elsewhere/real");
  EXPECT_TRUE(touched("links/a.log"));
}

TEST_F(DiscoveryTest, ALinkThatLeadsNowhereIsSeenToLeadSomewhere) {
  touch("elsewhere/other");
  fs::create_directory(files / "links");
  fs::create_symlink(files / "elsewhere/real", files / "links/a.log");
  look_for({"links/*.log"});
  scan();
  fs::create_symlink(files / "elsewhere/real", files / "links/b.log");
  ASSERT_TRUE(arrived("links/b.log"));
  for (int i = 0; i < 2; ++i) {
    changes = {};
    discovery->check_links(changes);
    EXPECT_TRUE(changes.arrived.empty());
    touch("elsewhere/real");
    discovery->check_links(changes);
    EXPECT_THAT(changes.arrived, testing::UnorderedElementsAre(files / "links/a.log", files / "links/b.log"));
    fs::remove(files / "elsewhere/real");
    discovery->check_links(changes);
  }
}

TEST_F(DiscoveryTest, ADirectoryThatAPatternNamesMayComeLater) {
  look_for({"app"});
  EXPECT_THAT(scan(), ElementsAre());
  touch("app/sub/a.log");
  EXPECT_TRUE(rescan_wanted());
  EXPECT_THAT(scan(), ElementsAre("app/sub/a.log"));
}

TEST_F(DiscoveryTest, PollingSeesEverythingByScanOnly) {
  look_for({"*.log"}, {}, true);
  EXPECT_TRUE(discovery->polling());
  touch("a.log");
  EXPECT_FALSE(discovery->read_events(changes));
  EXPECT_THAT(scan(), ElementsAre("a.log"));
}

}  // namespace
}  // namespace fantail
