#include "tests/model/tailer_model.h"

// Random things done to files; see tailer_model.h for what is compared.
namespace fantail {
namespace {

TEST_F(TailerModelTest, EveryIncarnationOfEveryFileArrivesAsOneStream) {
  for (const std::uint64_t seed : test::seeds(20)) {
    begin(seed, pattern_for(seed));
    SCOPED_TRACE(test::replay(seed));
    for (int i = 0; i < 40; ++i) {
      something_happens_to_files();
      settle();
      if (chance->with(0.05)) {
        note("15 s pass");
        settle(15s);
      }
      expect_all_that_there_was();
      if (HasFatalFailure()) FAIL() << story();
    }
    end();
  }
}

TEST_F(TailerModelTest, ARestartLosesNothingThatIsStillOnDisk) {
  for (const std::uint64_t seed : test::seeds(20)) {
    begin(seed, pattern_for(seed));
    SCOPED_TRACE(test::replay(seed));
    for (int i = 0; i < 30; ++i) {
      something_happens_to_files();
      settle();
      if (chance->with(0.3)) {
        note("stop");
        producer->tailer->save_now();
        stop();
        for (std::size_t k = number(0, 3); k > 0; --k) something_happens_to_files();
        note("start");
        start();
        settle();
      }
      expect_all_that_there_was();
      if (HasFatalFailure()) FAIL() << story();
    }
    end();
  }
}

TEST_F(TailerModelTest, ALostRegistryIsRebuiltAndNothingIsLostOrSentTwice) {
  for (const std::uint64_t seed : test::seeds(20)) {
    begin(seed, "*.log*");
    SCOPED_TRACE(test::replay(seed));
    for (int i = 0; i < 30; ++i) {
      something_happens_to_files();
      settle();
      if (chance->with(0.3)) {
        note("stop");
        producer->tailer->save_now();
        stop();
        lose_registry();
        knows_all_it_read = false;  // consumers know the beginning of a file, not what is before their cursor
        for (std::size_t k = number(0, 3); k > 0; --k) something_happens_to_files();
        knows_all_it_read = true;
        note("start");
        start();
        settle(5s);
      }
      expect_all_that_there_was();
      if (HasFatalFailure()) FAIL() << story();
    }
    end();
  }
}

TEST_F(TailerModelTest, AFileThatLeftThePatternIsFoundAfterTheRegistryWasLost) {
  begin(1, "*.log");
  append("a.log");
  settle();
  while (incarnations[0]->bytes.size() < 5'000) append("a.log");  // consumers learn its beginning as it grows
  settle();
  stop();
  lose_registry();
  rename("a.log");
  append(at.begin()->first);
  append("a.log");
  start();
  settle(5s);
  expect_all_that_there_was();
  EXPECT_EQ(consumer->received().size(), 2U);
}

TEST_F(TailerModelTest, KilledAtAnyMomentItNeverMixesWhatWasWithWhatIs) {
  for (const std::uint64_t seed : test::seeds(20)) {
    begin(seed, pattern_for(seed));
    SCOPED_TRACE(test::replay(seed));
    for (int i = 0; i < 30; ++i) {
      something_happens_to_files();
      if (chance->with(0.3)) {
        const Duration alive = chance->between(Duration(kStep), Duration(1500ms));
        run(alive);
        note("killed after " + std::to_string(to_milliseconds(alive)) + " ms");
        note_what_arrived();
        stop();
        for (std::size_t k = number(0, 3); k > 0; --k) something_happens_to_files();
        note("start");
        start();
      }
      settle();
      expect_all_that_there_was();
      if (HasFatalFailure()) FAIL() << story();
    }
    end();
  }
}

}  // namespace
}  // namespace fantail
