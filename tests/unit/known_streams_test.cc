#include "consumer/known_streams.h"

#include <gmock/gmock.h>

#include "tests/support/scratch_directory.h"

namespace fantail {
namespace {

constexpr NodeId kNode{1, 1};
constexpr NodeId kOther{2, 2};

class KnownStreamsTest : public testing::Test {
 protected:
  KnownStreamsTest() { reopen(); }
  void reopen() {
    known.reset();
    store.reset();
    state.reset();
    state.emplace(*StateDirectory::open(scratch.path()));
    std::string set_aside;
    store.emplace(std::move(*CursorStore::open(*state, set_aside)));
    known.emplace(*store, std::vector<std::string>{"mirror", "file"});
  }
  static wire::StreamInfo stream(std::uint64_t n) {
    wire::StreamInfo info;
    info.stream = {n, UINT64_MAX - n};
    info.sequence = n;
    info.topic = "web/access";
    info.path = "/log/\xFF" + std::to_string(n);
    info.base = {n};
    info.head = {n + 100};
    info.first_seen = {-5};
    info.file = {UINT64_MAX, UINT64_MAX - n, 4096, UINT64_MAX / 2 + n};
    return info;
  }
  void save() {
    ASSERT_TRUE(store->save({}, {}, known->unsaved()));
    known->saved();
  }
  void commit(const char* sink, StreamId stream, std::uint64_t offset) {
    ASSERT_TRUE(store->save({{sink, {{stream, {offset}}}, {}}}, {}));
  }
  std::vector<wire::StreamInfo> tell(NodeId node = kNode, std::uint64_t after = 0) {
    StreamsPage page(true);
    more = known->tell(node, after, page);
    return page.message().streams;
  }

  test::ScratchDirectory scratch;
  std::optional<StateDirectory> state;
  std::optional<CursorStore> store;
  std::optional<KnownStreams> known;
  std::optional<bool> more;
};

using testing::ElementsAre;
using testing::IsEmpty;

TEST_F(KnownStreamsTest, WhatWasToldIsToldAgainAfterARestart) {
  known->told(kNode, stream(2));
  known->told(kNode, stream(1));
  save();
  commit("mirror", stream(1).stream, 60);
  commit("file", stream(1).stream, 50);
  reopen();
  wire::StreamInfo first = stream(1);
  first.head = first.sent = first.committed = {50};
  wire::StreamInfo second = stream(2);
  second.head = second.base;
  EXPECT_THAT(tell(), ElementsAre(first, second));
  EXPECT_EQ(more, false);
}

TEST_F(KnownStreamsTest, CommittedIsWhatEverySinkHas) {
  known->told(kNode, stream(1));
  save();
  commit("mirror", stream(1).stream, 60);
  EXPECT_EQ(tell()[0].committed, FileOffset{0});
  commit("gone sink", stream(1).stream, 7);
  commit("file", stream(1).stream, 80);
  EXPECT_EQ(tell()[0].committed, FileOffset{60});
}

TEST_F(KnownStreamsTest, OnlyWhatIsSavedIsTold) {
  known->told(kNode, stream(1));
  EXPECT_FALSE(known->unsaved().empty());
  EXPECT_THAT(tell(), IsEmpty()) << "its cursor could not be there either";
  save();
  EXPECT_TRUE(known->unsaved().empty());
  EXPECT_EQ(tell().size(), 1U);
}

TEST_F(KnownStreamsTest, TheFileIsTheOneToldLast) {
  wire::StreamInfo info = stream(1);
  info.file.head_length = 0;
  known->told(kNode, info);
  save();
  known->told(kNode, stream(1));
  save();
  reopen();
  EXPECT_EQ(tell()[0].file, stream(1).file);
}

TEST_F(KnownStreamsTest, ASealComesAndMayGoAgain) {
  wire::StreamInfo info = stream(1);
  known->told(kNode, info);
  known->sealed(info.stream, {77});
  save();
  reopen();
  EXPECT_TRUE(tell()[0].sealed);
  EXPECT_EQ(tell()[0].head, FileOffset{77});
  known->told(kNode, info);  // it goes on
  save();
  EXPECT_FALSE(tell()[0].sealed);
  info.sealed = true;
  known->told(kNode, info);
  save();
  EXPECT_TRUE(tell()[0].sealed);
  EXPECT_EQ(tell()[0].head, info.head);
}

TEST_F(KnownStreamsTest, NobodyIsToldOfTheStreamsOfAnother) {
  known->told(kNode, stream(1));
  known->told(kOther, stream(2));
  save();
  EXPECT_EQ(tell(kNode).size(), 1U);
  EXPECT_EQ(tell(kOther)[0].sequence, 2U);
  EXPECT_THAT(tell(NodeId{3, 3}), IsEmpty());
}

TEST_F(KnownStreamsTest, AStreamStaysWithItsNode) {
  known->told(kNode, stream(1));
  save();
  wire::StreamInfo stolen = stream(1);
  stolen.file = {};
  known->told(kOther, stolen);
  save();
  EXPECT_THAT(tell(kOther), IsEmpty());
  EXPECT_EQ(tell(kNode)[0].file, stream(1).file);
}

TEST_F(KnownStreamsTest, ManyAreToldInPagesThatFitAMessage) {
  for (std::uint64_t n = 1; n <= 600; ++n) {
    wire::StreamInfo info = stream(n);
    if (n > 300) info.path = "/" + std::string(wire::kMaxPathBytes - 1, 'p');
    known->told(kNode, info);
  }
  save();
  wire::Encoder encoder;
  std::uint64_t after = 0;
  std::uint64_t next = 1;
  do {
    StreamsPage page(true);
    more = known->tell(kNode, after, page);
    ASSERT_TRUE(more);
    EXPECT_LE(encoder.streams(page.message(*more)).size(), wire::kMaxHeaderBytes);
    ASSERT_FALSE(page.message().streams.empty());
    for (const auto& info : page.message().streams) ASSERT_EQ(info.sequence, next++);
    after = next - 1;
  } while (*more);
  EXPECT_EQ(next, 601U);
}

}  // namespace
}  // namespace fantail
