#include "producer/all_of.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace fantail {
namespace {

TEST(AllOfTest, SaysTheSameAsALookAtEachOfThem) {
  std::mt19937 random(20261127);
  std::map<int, bool> done;
  AllOf<int> all;
  for (int step = 0; step < 20'000; ++step) {
    const int key = static_cast<int>(random() % 12);
    switch (random() % 4) {
      case 0: done[key] = false; break;
      case 1: done.erase(key); break;
      default:
        if (const auto found = done.find(key); found != done.end()) found->second = true;
    }
    bool expected = true;
    for (const auto& [k, is_done] : done) expected = expected && is_done;
    ASSERT_EQ(all.ask(done, [](const auto& entry) { return entry.second; }), expected) << "step " << step;
  }
}

TEST(AllOfTest, AskingAgainCostsWhatHasBecomeTrueMeanwhile) {
  constexpr int kMany = 1000;
  std::map<int, bool> done;
  for (int key = 0; key < kMany; ++key) done[key] = false;
  AllOf<int> all;
  int looks = 0;
  for (int key = 0; key < kMany; ++key) {
    EXPECT_FALSE(all.ask(done, [&](const auto& entry) { return ++looks, entry.second; }));
    done[key] = true;
  }
  EXPECT_LE(looks, 2 * kMany);
  EXPECT_TRUE(all.ask(done, [](const auto& entry) { return entry.second; }));
}

}  // namespace
}  // namespace fantail
