#include "consumer/mirror_sink.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <list>

#include "common/base/digest.h"
#include "common/base/log.h"
#include "tests/support/scratch_directory.h"

namespace fantail {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// A mirror sink with its store; restart() keeps what was committed.
class MirrorSinkTest : public testing::Test {
 protected:
  MirrorSinkTest() {
    log::set_up(log::Level::kOff);
    start();
  }
  ~MirrorSinkTest() override { log::set_up(log::Level::kInfo); }

  void start() {
    std::string set_aside;
    state.emplace(*StateDirectory::open(scratch.path() / "state"));
    store.emplace(*CursorStore::open(*state, set_aside));
    sink = std::move(*MirrorSink::open(root, *store));
  }
  void restart() {
    sink.reset();
    store.reset();
    state.reset();
    start();
  }
  void commit() {
    Checkpoint checkpoint = sink->checkpoint();
    ASSERT_TRUE(store->save({{sink->key(), checkpoint.positions, checkpoint.outputs}}, {}));
  }
  StreamMeta& stream(std::uint64_t n, const std::string& path) {
    StreamMeta& meta = metas.emplace_back();
    meta.stream = {n << 32, n};
    meta.node = {9, 9};
    meta.node_name = meta.node_dir = "host";
    meta.topic = "log";
    meta.path = path;
    meta.sequence = n;
    meta.first_seen = {static_cast<std::int64_t>(n) * 1'000'000'000};
    return meta;
  }
  Result<FileOffset> open(const StreamMeta& meta) {
    return sink->open_stream(meta, store->cursor(sink->key(), meta.stream).value_or(FileOffset{}));
  }
  Status write(const StreamMeta& meta, std::uint64_t offset, std::string_view text) {
    return sink->write(meta, {offset}, as_bytes(text), {});
  }
  void receive(const StreamMeta& meta, std::string_view text) {
    const auto at = open(meta);
    ASSERT_TRUE(at) << at.error().context;
    const auto written = write(meta, 0, text);
    ASSERT_TRUE(written) << written.error().context;
  }
  std::string problem_of_another() {
    const auto another = MirrorSink::open(root, *store);
    return another ? "" : another.error().context;
  }
  std::string in(const std::string& name) const { return test::contents(root + "/" + name); }
  /// Where an older stream of `path` is kept: the part behind the path.
  static std::string older(const StreamMeta& meta) {
    return "@" + to_compact_utc(meta.first_seen) + "-" + short_hex(meta.stream);
  }
  std::size_t files_outside() const {
    std::size_t n = 0;
    for (const auto& entry : fs::directory_iterator(scratch.path())) n += entry.path() == root ? 0 : 1;
    return n;
  }

  test::ScratchDirectory scratch;
  const std::string root = scratch / "mirror";
  std::optional<StateDirectory> state;
  std::optional<CursorStore> store;
  std::unique_ptr<MirrorSink> sink;
  std::list<StreamMeta> metas;
};

TEST_F(MirrorSinkTest, WritesByteForByteUnderNodeAndPath) {
  receive(stream(1, "/var/log/a.log"), std::string("bin\0ary\n", 8));
  EXPECT_EQ(in("host/var/log/a.log"), std::string("bin\0ary\n", 8));
}

TEST_F(MirrorSinkTest, AnEmptyStreamHasAMirrorToo) {
  ASSERT_TRUE(open(stream(1, "/a.log")));
  EXPECT_TRUE(fs::exists(root + "/host/a.log"));
}

TEST_F(MirrorSinkTest, WritingTwiceChangesNothing) {
  const StreamMeta& a = stream(1, "/a.log");
  receive(a, "one two three");
  ASSERT_TRUE(write(a, 4, "two"));
  EXPECT_EQ(in("host/a.log"), "one two three");
}

TEST_F(MirrorSinkTest, ARestartGoesOnWhereItWasCommitted) {
  const StreamMeta& a = stream(1, "/a.log");
  receive(a, "committed");
  commit();
  ASSERT_TRUE(write(a, 9, " and not"));
  restart();
  EXPECT_EQ(open(a).value(), FileOffset{9});
  ASSERT_TRUE(write(a, 9, " and now more"));
  EXPECT_EQ(in("host/a.log"), "committed and now more");
}

TEST_F(MirrorSinkTest, HostilePathsNeverLeaveTheDirectory) {
  const std::size_t before = files_outside();
  std::uint64_t n = 0;
  for (const char* path : {"/../../escape", "../escape", "/a/../../../escape", "/..", "..", "/", "", "//./..//escape",
                           "/a/./../b", "/.", "/\n", "/.losses.tsv"}) {
    const auto at = open(stream(++n, path));
    EXPECT_TRUE(at) << path << ": " << at.error().context;
  }
  const auto long_name = open(stream(++n, "/" + std::string(4000, 'x')));
  EXPECT_TRUE(long_name) << long_name.error().context;
  EXPECT_EQ(files_outside(), before);
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    EXPECT_THAT(entry.path().string(), testing::StartsWith(root + "/host"));
  }
}

TEST_F(MirrorSinkTest, TwoLongNamesThatDifferAtTheEndAreTwoFiles) {
  const std::string name(300, 'x');
  receive(stream(1, "/" + name + "1"), "one");
  receive(stream(2, "/" + name + "2"), "two");
  std::size_t files = 0;
  for (const auto& entry : fs::directory_iterator(root + "/host")) files += entry.is_regular_file() ? 1 : 0;
  EXPECT_EQ(files, 2U);
}

TEST_F(MirrorSinkTest, ALinkInTheWayIsNotFollowed) {
  fs::create_directories(scratch.path() / "outside");
  fs::create_directories(root + "/host");
  fs::create_directory_symlink(scratch.path() / "outside", root + "/host/var");
  EXPECT_FALSE(open(stream(1, "/var/log/a.log")));
  EXPECT_TRUE(fs::is_empty(scratch.path() / "outside"));
}

TEST_F(MirrorSinkTest, ALinkAtTheNameOfAKnownMirrorIsNotFollowed) {
  const StreamMeta& a = stream(1, "/a.log");
  receive(a, "text");
  commit();
  test::append(scratch / "victim", "precious");
  restart();
  fs::remove(root + "/host/a.log");
  fs::create_symlink(scratch.path() / "victim", root + "/host/a.log");
  EXPECT_FALSE(open(a));
  EXPECT_EQ(test::contents(scratch / "victim"), "precious");
}

TEST_F(MirrorSinkTest, ANewerStreamTakesThePlainNameAndTheOlderIsKept) {
  const StreamMeta& first = stream(1, "/a.log");
  const StreamMeta& second = stream(2, "/a.log");
  receive(first, "old");
  receive(second, "new");
  ASSERT_TRUE(write(first, 3, " still growing"));
  EXPECT_EQ(in("host/a.log"), "new");
  EXPECT_EQ(in("host/a.log" + older(first)), "old still growing");
}

TEST_F(MirrorSinkTest, AnOlderStreamThatIsHeardOfLateDoesNotTakeThePlainName) {
  const StreamMeta& first = stream(1, "/a.log");
  const StreamMeta& second = stream(2, "/a.log");
  receive(second, "new");
  receive(first, "old");
  EXPECT_EQ(in("host/a.log"), "new");
  EXPECT_EQ(in("host/a.log" + older(first)), "old");
}

TEST_F(MirrorSinkTest, ACrashBetweenStoreAndRenameIsMadeGood) {
  const StreamMeta& first = stream(1, "/a.log");
  receive(first, "old");
  commit();
  // The store says the new name already; the rename did not happen any more.
  ASSERT_TRUE(store->save_mirrors(sink->key(),
                                  {{first.stream, {"host/a.log", "host/a.log" + older(first), 1, first.first_seen}}}));
  restart();
  EXPECT_EQ(open(first).value(), FileOffset{3});
  receive(stream(2, "/a.log"), "new");
  EXPECT_EQ(in("host/a.log" + older(first)), "old");
  EXPECT_EQ(in("host/a.log"), "new");
}

TEST_F(MirrorSinkTest, ThoseThatAreToldTogetherGetTheSameNamesAsOneByOne) {
  stream(1, "/a.log");
  stream(2, "/a.log");        // a newer one of the same path
  stream(3, "/dir/file");     // "dir" is a directory by that
  stream(4, "/dir");          // and was a file before, or is one after
  stream(5, "/b");            //
  stream(6, "/b/c");          // the other way round
  stream(7, "/dir/another");  // nobody is in its way
  const std::vector<StreamMeta> told(metas.begin(), metas.end());
  sink->expect(told);
  for (const StreamMeta& meta : metas) receive(meta, "of " + std::to_string(meta.sequence));
  sink->expect(told);  // of known ones nothing changes

  EXPECT_EQ(in("host/a.log" + older(told[0])), "of 1");
  EXPECT_EQ(in("host/a.log"), "of 2");
  EXPECT_EQ(in("host/dir/file"), "of 3");
  EXPECT_EQ(in("host/dir" + older(told[3])), "of 4");
  EXPECT_EQ(in("host/b" + older(told[4])), "of 5");
  EXPECT_EQ(in("host/b/c"), "of 6");
  EXPECT_EQ(in("host/dir/another"), "of 7");
}

TEST_F(MirrorSinkTest, WhoseNameWasStoredBeforeACrashAndWhoseFileWasNotMadeBeginsWhereItIsToldTo) {
  stream(1, "/a.log");
  stream(2, "/b.log");
  sink->expect(std::vector<StreamMeta>(metas.begin(), metas.end()));
  EXPECT_FALSE(fs::exists(root + "/host/a.log"));
  restart();
  EXPECT_EQ(sink->open_stream(metas.front(), {1000}).value(), FileOffset{1000}) << "not completed from its beginning";
  EXPECT_EQ(fs::file_size(root + "/host/a.log"), 1000U);
  receive(metas.back(), "b");
  EXPECT_EQ(in("host/b.log"), "b");
}

TEST_F(MirrorSinkTest, ARenameThatFailsAtFirstDoesNotMixTwoStreams) {
  const StreamMeta& first = stream(1, "/dir/a.log");
  const StreamMeta& second = stream(2, "/dir/a.log");
  receive(first, "old and long");
  fs::rename(root + "/host/dir", root + "/host/elsewhere");
  fs::create_directory_symlink(root + "/host/elsewhere", root + "/host/dir");
  EXPECT_FALSE(open(second)) << "the directory cannot be used now";
  fs::remove(root + "/host/dir");
  fs::rename(root + "/host/elsewhere", root + "/host/dir");
  receive(second, "new");
  EXPECT_EQ(in("host/dir/a.log"), "new");
  EXPECT_EQ(in("host/dir/a.log" + older(first)), "old and long");
}

TEST_F(MirrorSinkTest, AFileThatBecomesADirectoryMakesWay) {
  const StreamMeta& file = stream(1, "/a");
  const StreamMeta& below = stream(2, "/a/b/c");
  receive(file, "old");
  receive(below, "below");
  ASSERT_TRUE(write(file, 3, " still growing"));
  commit();
  restart();
  EXPECT_EQ(open(file).value(), FileOffset{17});
  EXPECT_EQ(open(below).value(), FileOffset{5});
  EXPECT_EQ(in("host/a" + older(file)), "old still growing");
  EXPECT_EQ(in("host/a/b/c"), "below");
}

TEST_F(MirrorSinkTest, ADirectoryThatBecomesAFileStaysBesideIt) {
  const StreamMeta& below = stream(1, "/a/b");
  const StreamMeta& file = stream(2, "/a");
  receive(below, "below");
  receive(file, "file");
  ASSERT_TRUE(write(below, 5, " still growing"));
  commit();
  restart();
  EXPECT_EQ(open(below).value(), FileOffset{19});
  EXPECT_EQ(open(file).value(), FileOffset{4});
  EXPECT_EQ(in("host/a/b"), "below still growing");
  EXPECT_EQ(in("host/a" + older(file)), "file");
}

TEST_F(MirrorSinkTest, AFileThatIsNoKnownMirrorIsKeptAside) {
  fs::create_directories(root + "/host");
  test::append(root + "/host/a.log", "somebody's");
  receive(stream(1, "/a.log"), "ours");
  EXPECT_EQ(in("host/a.log"), "ours");
  bool kept = false;
  for (const auto& entry : fs::directory_iterator(root + "/host")) {
    kept =
        kept || (entry.path().string().ends_with("-unknown") && test::contents(entry.path().string()) == "somebody's");
  }
  EXPECT_TRUE(kept);
}

TEST_F(MirrorSinkTest, AMirrorThatWasShortenedIsCompleted) {
  const StreamMeta& a = stream(1, "/a.log");
  receive(a, "one two three");
  commit();
  restart();
  fs::resize_file(root + "/host/a.log", 4);
  EXPECT_EQ(open(a).value(), FileOffset{4});
}

TEST_F(MirrorSinkTest, AMirrorThatWasDeletedIsMadeAnew) {
  const StreamMeta& a = stream(1, "/a.log");
  receive(a, "one two three");
  commit();
  restart();
  fs::remove(root + "/host/a.log");
  EXPECT_EQ(open(a).value(), FileOffset{0});
}

TEST_F(MirrorSinkTest, AStreamThatIsTakenFromLaterOnKeepsItsOffsets) {
  const StreamMeta& a = stream(1, "/a.log");
  EXPECT_EQ(sink->open_stream(a, {5}).value(), FileOffset{5});
  ASSERT_TRUE(write(a, 5, "six"));
  EXPECT_EQ(in("host/a.log"), std::string(5, '\0') + "six");
}

TEST_F(MirrorSinkTest, ALossIsAHoleAndALineInTheList) {
  const StreamMeta& a = stream(1, "/a.log");
  receive(a, "one");
  ASSERT_TRUE(sink->lose(a, {{3}, {6}}, wire::LossReason::kDeleted));
  EXPECT_EQ(in("host/a.log").size(), 6U);
  ASSERT_TRUE(write(a, 6, "two"));
  EXPECT_EQ(in("host/a.log"), std::string("one\0\0\0two", 9));
  EXPECT_THAT(in(".losses.tsv"), AllOf(HasSubstr(to_string(a.stream) + "\t3\t6\t"), HasSubstr("host/a.log")));
}

TEST_F(MirrorSinkTest, ALossThatIsToldAgainAfterACrashIsListedOnce) {
  const StreamMeta& a = stream(1, "/a.log");
  receive(a, "one");
  commit();
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(sink->lose(a, {{3}, {6}}, wire::LossReason::kDeleted));
    const std::string list = in(".losses.tsv");
    EXPECT_EQ(std::count(list.begin(), list.end(), '\n'), 1);
    restart();
    EXPECT_EQ(open(a).value(), FileOffset{3});
  }
  ASSERT_TRUE(sink->lose(a, {{3}, {7}}, wire::LossReason::kDeleted));
  EXPECT_THAT(in(".losses.tsv"), HasSubstr("\t3\t7\t"));
}

TEST_F(MirrorSinkTest, ACheckpointTellsWhatMovedOnce) {
  const StreamMeta& a = stream(1, "/a.log");
  receive(a, "text");
  const Checkpoint first = sink->checkpoint();
  ASSERT_EQ(first.positions.size(), 1U);
  EXPECT_EQ(first.positions[0].offset, FileOffset{4});
  EXPECT_TRUE(first.filesystem) << "names changed too";
  EXPECT_TRUE(sink->checkpoint().positions.empty());
  ASSERT_TRUE(write(a, 4, "more"));
  const Checkpoint second = sink->checkpoint();
  EXPECT_EQ(second.files.size(), 1U);
  EXPECT_FALSE(second.filesystem);
}

TEST_F(MirrorSinkTest, MoreMirrorsThanDescriptorsAllGetTheirBytes) {
  for (std::uint64_t n = 1; n <= 700; ++n) receive(stream(n, "/" + std::to_string(n)), std::to_string(n));
  for (const auto& meta : metas) ASSERT_TRUE(write(meta, std::to_string(meta.sequence).size(), "!"));
  for (std::uint64_t n = 1; n <= 700; ++n) ASSERT_EQ(in("host/" + std::to_string(n)), std::to_string(n) + "!");
}

TEST_F(MirrorSinkTest, TwoConsumersDoNotShareADirectory) {
  EXPECT_THAT(problem_of_another(), HasSubstr("another consumer mirrors into this directory"));
  sink.reset();
  EXPECT_EQ(problem_of_another(), "");
}

}  // namespace
}  // namespace fantail
