#include "tests/model/tailer_model.h"

// What a Tailer does when files are compressed.
namespace fantail {
namespace {

/// A producer that is killed behind what is written, and files that are compressed before it starts again.
class CompressedTest : public TailerModelTest, public testing::WithParamInterface<ArchiveFormat> {
 protected:
  void begin_with(const std::string& text, const std::string& pattern = "*.log*") {
    begin(1, pattern);
    append("a.log", text);
    settle();
    first = consumer->received().begin()->first;
  }
  /// Nobody takes it, so it is not read.
  void lag(const std::string& text) {
    consumer->inlet.listening = false;
    consumer->link.go_down();
    append("a.log", text);
    run(100ms);
  }
  void start_again() {
    consumer->inlet.listening = true;
    start();
    settle(5s);
  }
  /// As if it had been there for a while.
  void age(const std::string& name) {
    std::filesystem::last_write_time(path(name), std::filesystem::file_time_type::clock::now() - 1h);
  }
  const Received& of_first() const {
    static const Received kNothing;
    const Received* received = consumer->of(first);
    return received != nullptr ? *received : kNothing;
  }

  StreamId first;
};
INSTANTIATE_TEST_SUITE_P(Formats, CompressedTest, testing::Values(ArchiveFormat::kGzip, ArchiveFormat::kZstd),
                         [](const auto& test) { return test.param == ArchiveFormat::kGzip ? "gzip" : "zstd"; });

TEST_P(CompressedTest, TheStreamGoesOnInTheArchive) {
  for (const std::size_t read : {300, 3'000'000}) {
    for (const std::size_t unread : {0, 1, 2'000'000}) {
      SCOPED_TRACE(std::to_string(read) + " bytes read, " + std::to_string(unread) + " not");
      begin_with(Chance(read).text(read));
      lag(chance->text(unread));
      stop();
      append("a.log", chance->text(500));
      compress("a.log", GetParam());
      append("a.log", chance->text(100));
      start_again();
      expect_all_that_there_was();
      EXPECT_EQ(of_first().bytes, incarnations[0]->bytes);
      EXPECT_EQ(consumer->received().size(), 2U);
      for (int i = 0; i < 2; ++i) {
        stop();
        start_again();
        EXPECT_EQ(consumer->received().size(), 2U) << "the archive is known";
        EXPECT_EQ(producer->tailer->counters().streams_created, 0U);
      }
      end();
    }
  }
}

TEST_P(CompressedTest, AnArchiveThatIsFoundWithTheFileThatItIsMadeOfIsItsCopy) {
  begin_with("known before\n");
  stop();
  append("b.log", chance->text(100'000));
  test::rewrite(path("b.log.gz"), test::compress(GetParam(), at.at("b.log")->bytes));
  start_again();
  expect_all_that_there_was();
  EXPECT_EQ(consumer->received().size(), 2U);
}

TEST_P(CompressedTest, ItGoesOnThereAfterAKillAtAnyMoment) {
  begin_with(Chance(1).text(1'000'000));
  lag(chance->text(4'000'000));
  stop();
  compress("a.log", GetParam());
  for (int i = 0; i < 100; ++i) {
    consumer->inlet.listening = true;
    start();
    run(kStep * static_cast<int>(number(50, 90)));  // a second to find out that the file is gone
    consumer->commit();
    stop();
  }
  start_again();
  expect_all_that_there_was();
  EXPECT_EQ(consumer->received().size(), 1U);
}

TEST_P(CompressedTest, WhatWasTruncatedGoesOnInTheArchiveOfItsCopy) {
  for (const std::size_t refilled : {50, 3'000'000}) {  // less and more than there was
    begin_with(Chance(1).text(100'000));
    lag(chance->text(1'000'000));
    if (refilled == 50) stop();
    const std::string text = chance->text(refilled);
    test::rewrite(path("a.log.1.gz"), test::compress(GetParam(), incarnations[0]->bytes));
    at["a.log.1.gz"] = at.at("a.log");
    test::rewrite(path("a.log"), text);
    incarnate("a.log", text);
    if (producer) run(100ms);
    stop();
    start_again();
    expect_all_that_there_was();
    EXPECT_EQ(of_first().bytes, incarnations[0]->bytes);
    EXPECT_EQ(consumer->received().size(), 2U);
    end();
  }
}

TEST_P(CompressedTest, TheStreamEndsWithTheArchiveAndStaysReadableWhileThatIsThere) {
  begin_with(Chance(1).text(1'500'000));
  lag(chance->text(1'000'000));
  stop();
  const std::string archive = compress("a.log", GetParam());
  age(archive);
  start_again();
  ASSERT_TRUE(of_first().final_length);
  EXPECT_EQ(of_first().final_length->raw, incarnations[0]->bytes.size());
  run(60s);
  stop();
  note("rename " + archive);
  std::filesystem::rename(path(archive), path("a.log.9.gz"));
  // Somebody else who has nothing of it.
  auto late = std::make_unique<RecordingConsumer>("late", *chance);
  broadcast->inlets = {&late->inlet};
  control->links = {&late->link};
  consumer = std::move(late);
  start();
  run(20s);
  EXPECT_EQ(of_first().bytes, incarnations[0]->bytes);
  EXPECT_EQ(consumer->received().size(), 1U);
  consumer->commit();
  run(60s);
  EXPECT_EQ(producer->tailer->size(), 1U);
  std::filesystem::remove(path("a.log.9.gz"));
  run(60s);
  EXPECT_EQ(producer->tailer->size(), 0U) << "nothing of it can be read any more";
  EXPECT_THAT(of_first().losses, testing::IsEmpty());
}

/// As when another file gets the inode of one that was deleted.
TEST_P(CompressedTest, WhatIsAsLongAsTheArchiveWasIsNotTakenForIt) {
  begin_with(Chance(1).text(10'000));
  stop();
  const std::string archive = compress("a.log", GetParam());
  age(archive);
  start_again();
  ASSERT_TRUE(of_first().final_length);
  const std::string another = chance->text(std::filesystem::file_size(path(archive)));
  test::write_at(path(archive), 0, another);
  incarnate(archive, another);
  run(10s);
  expect_all_that_there_was();
  EXPECT_EQ(consumer->received().size(), 2U);
}

TEST_P(CompressedTest, WhatIsInTheArchiveCanBeSentAgain) {
  begin_with(Chance(1).text(1'500'000));
  stop();
  const std::string archive = compress("a.log", GetParam());
  age(archive);
  start_again();
  ASSERT_TRUE(of_first().final_length);
  const auto sent = [&] { return producer->publisher->broadcast_counters().raw_bytes_sent; };
  const std::uint64_t before = sent();
  ASSERT_TRUE(producer->tailer->rewind(first, {500'000}));
  run(5s);
  EXPECT_EQ(sent() - before, 1'000'000U);
  ASSERT_TRUE(producer->tailer->rewind(first, {100}));
  producer->tailer->save_now();
  stop();
  start_again();
  EXPECT_EQ(sent(), 1'500'000U - 100U);
  EXPECT_THAT(of_first().losses, testing::IsEmpty());
  EXPECT_EQ(producer->tailer->size(), 1U);
}

TEST_P(CompressedTest, TheLengthOfWhatAFileWasRewrittenWithIsNotThatOfTheStream) {
  begin_with(Chance(1).text(100'000));
  test::rewrite(path("a.log.1.gz"), test::compress(GetParam(), incarnations[0]->bytes));
  test::rewrite(path("a.log"), chance->text(3'000'000));
  for (int i = 0; i < 100 && producer->tailer->counters().streams_adopted == 0; ++i) run(kStep);
  producer->tailer->save_now();
  stop();
  start_again();
  ASSERT_TRUE(of_first().final_length);
  EXPECT_EQ(of_first().final_length->raw, 100'000U);
  EXPECT_EQ(consumer->received().size(), 2U);
}

TEST_P(CompressedTest, AnArchiveThatIsRotatedOnBeforeItIsReadIsKnownForWhatItIs) {
  begin_with(Chance(1).text(100'000));
  lag(chance->text(1'000'000));
  stop();
  const std::string archive = compress("a.log", GetParam());
  start();
  consumer->link.go_down();
  run(3s);
  EXPECT_EQ(producer->tailer->counters().streams_adopted, 1U);
  std::filesystem::rename(path(archive), path("a.log.9.gz"));
  run(200s);  // three walks
  stop();
  start_again();
  EXPECT_EQ(of_first().bytes, incarnations[0]->bytes);
  EXPECT_TRUE(of_first().final_length);
  EXPECT_EQ(consumer->received().size(), 1U);
}

TEST_P(CompressedTest, WhatADamagedArchiveLacksIsALoss) {
  begin_with(Chance(1).text(100'000));
  lag(chance->text(2'000'000));
  stop();
  const std::string archive = compress("a.log", GetParam());
  std::filesystem::resize_file(path(archive), std::filesystem::file_size(path(archive)) / 2);
  age(archive);
  start_again();
  ASSERT_EQ(of_first().losses.size(), 1U);
  EXPECT_EQ(of_first().losses[0].reason, wire::LossReason::kArchiveDamaged);
  const std::size_t got = of_first().losses[0].range.from.raw;
  EXPECT_GT(got, 500'000U);
  EXPECT_EQ(of_first().bytes.substr(0, got), incarnations[0]->bytes.substr(0, got));
  EXPECT_EQ(consumer->received().size(), 1U);
  stop();
  start_again();
  EXPECT_EQ(consumer->received().size(), 1U);
}

TEST_P(CompressedTest, WhatIsNotInAnArchiveThatIsCompleteIsALoss) {
  begin_with(Chance(1).text(100'000));
  lag(chance->text(50'000));
  producer->tailer->save_now();
  stop();
  const std::string archive = compress("a.log", GetParam());
  test::rewrite(path(archive), test::compress(GetParam(), incarnations[0]->bytes.substr(0, 120'000)));
  age(archive);
  start_again();
  run(30s);
  ASSERT_EQ(of_first().losses.size(), 1U);
  EXPECT_EQ(of_first().losses[0].reason, wire::LossReason::kTruncated);
  EXPECT_EQ(of_first().losses[0].range, (ByteRange{{120'000}, {150'000}}));
  EXPECT_EQ(of_first().bytes.substr(0, 120'000), incarnations[0]->bytes.substr(0, 120'000));
}

TEST_P(CompressedTest, AnArchiveThatDiffersBeforeTheCursorIsAStreamOfItsOwn) {
  begin_with(Chance(1).text(100'000));
  stop();
  const std::string archive = compress("a.log", GetParam());
  std::string other = incarnations[0]->bytes + "more";
  other[99'950] ^= 1;
  test::rewrite(path(archive), test::compress(GetParam(), other));
  start_again();
  ASSERT_EQ(consumer->received().size(), 2U);
  for (const auto& [id, r] : consumer->received()) {
    EXPECT_EQ(r.bytes, id == first ? incarnations[0]->bytes : other);
  }
}

TEST_P(CompressedTest, ArchivesThatAreSentAsTheyAreAreNoCopies) {
  tailing.decompress = false;
  begin_with(Chance(1).text(100'000));
  stop();
  const std::string archive = compress("a.log", GetParam());
  const std::string packed = test::contents(path(archive));
  start_again();
  ASSERT_EQ(consumer->received().size(), 2U);
  for (const auto& [id, r] : consumer->received()) {
    EXPECT_EQ(r.bytes, id == first ? incarnations[0]->bytes : packed);
  }
}

TEST_P(CompressedTest, AnArchiveThatIsBeingMadeIsWaitedFor) {
  begin_with(Chance(1).text(1'000'000));
  const std::string packed = test::compress(GetParam(), incarnations[0]->bytes);
  std::filesystem::rename(path("a.log"), path("a.log.1"));
  const UniqueFd writer(::open(path("a.log.1.gz").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_GT(::write(writer.get(), packed.data(), packed.size() / 2), 0);
  run(10s);
  stop();
  start();
  run(10s);
  EXPECT_EQ(consumer->received().size(), 1U);
  const std::string rest = packed.substr(packed.size() / 2);
  ASSERT_EQ(::write(writer.get(), rest.data(), rest.size()), static_cast<ssize_t>(rest.size()));
  run(3s);
  std::filesystem::remove(path("a.log.1"));
  run(3s);
  EXPECT_EQ(consumer->received().size(), 1U);
  EXPECT_EQ(producer->tailer->counters().streams_adopted, 1U) << "what is open is not needed any more";
}

TEST_P(CompressedTest, WhatIsHeldForAConsumerIsInTheArchiveAfterAKill) {
  for (const char* pattern : {"*.log", "*.log*"}) {
    begin_with(Chance(1).text(100'000), pattern);
    lag(chance->text(1'000'000));
    compress("a.log", GetParam());
    run(5s);
    producer->tailer->save_now();
    stop();
    start_again();
    EXPECT_EQ(of_first().bytes, incarnations[0]->bytes);
    EXPECT_THAT(of_first().losses, testing::IsEmpty());
    EXPECT_EQ(consumer->received().size(), 1U);
    end();
  }
}

TEST_P(CompressedTest, WhatWasSentAndNotCommittedIsInTheArchiveAfterAKill) {
  for (const char* pattern : {"*.log", "*.log*"}) {
    begin(1, pattern);
    append("a.log", chance->text(100'000));
    run(2s);
    compress("a.log", GetParam());
    run(5s);
    producer->tailer->save_now();
    stop();
    consumer->restart();
    start_again();
    ASSERT_EQ(consumer->received().size(), 1U);
    EXPECT_EQ(consumer->received().begin()->second.bytes, incarnations[0]->bytes);
    EXPECT_THAT(consumer->received().begin()->second.losses, testing::IsEmpty());
    end();
  }
}

TEST_P(CompressedTest, WhoStillWritesToADeletedFileKeepsItsStreamThere) {
  begin_with(Chance(1).text(2'000));  // the shortest are the hardest to know
  const UniqueFd writer(::open(path("a.log").c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  compress("a.log", GetParam());
  run(10s);
  EXPECT_EQ(producer->tailer->counters().streams_adopted, 0U);
  const std::string more = chance->text(100);
  ASSERT_EQ(::write(writer.get(), more.data(), more.size()), 100);
  run(10s);
  EXPECT_EQ(of_first().bytes, incarnations[0]->bytes + more);
  EXPECT_EQ(consumer->received().size(), 1U);
}

TEST_P(CompressedTest, ALargeArchiveIsReadThroughInPieces) {
  begin_with(Chance(1).text(10'000));
  const std::string large = std::string(64'000'000, 'x');
  lag(large);
  producer->tailer->save_now();  // that there is so much
  stop();
  compress("a.log", GetParam());
  append("a.log", "first\n");
  consumer->inlet.listening = true;
  start();
  run(1500ms);  // 75 turns
  EXPECT_EQ(producer->tailer->counters().streams_adopted, 0U);
  EXPECT_EQ(consumer->received().size(), 2U) << "the other file is read meanwhile";
  run(3s);
  EXPECT_EQ(producer->tailer->counters().streams_adopted, 1U);
  run(10s);
  EXPECT_EQ(of_first().bytes, incarnations[0]->bytes);
}

}  // namespace
}  // namespace fantail
