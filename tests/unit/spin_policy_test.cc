#include "common/transport/spin_policy.h"

#include <gtest/gtest.h>

namespace fantail {
namespace {

constexpr Duration kQuick = 20us;
constexpr Duration kSlow = 10ms;

/// How many of the next waits, all this long, begin with a look.
int looks(SpinPolicy& policy, Duration took, int waits) {
  int looked = 0;
  for (int i = 0; i < waits; ++i) {
    if (policy.look() > Duration::zero()) ++looked;
    policy.waited(took);
  }
  return looked;
}

TEST(SpinPolicyTest, NothingIsLookedForBeforeAnythingCameSoon) {
  SpinPolicy policy;
  EXPECT_EQ(policy.look(), Duration::zero());
  policy.waited(kSlow);
  EXPECT_EQ(looks(policy, kSlow, 1000), 0);
}

TEST(SpinPolicyTest, OneThatCameSoonMakesEveryFollowingWaitALook) {
  SpinPolicy policy;
  policy.look();
  policy.waited(SpinPolicy::kSoon);  // asleep, and yet soon
  EXPECT_EQ(looks(policy, kQuick, 1000), 1000);
}

TEST(SpinPolicyTest, APauseEndsIt) {
  SpinPolicy policy;
  looks(policy, kQuick, 10);
  EXPECT_EQ(policy.look(), SpinPolicy::kLimit);
  policy.waited(kSlow);
  EXPECT_EQ(policy.look(), Duration::zero());
}

/// What comes regularly just behind the longest look would be looked for in vain each time.
TEST(SpinPolicyTest, WhoLooksInVainLooksLessAndLess) {
  SpinPolicy policy;
  policy.look();
  policy.waited(kQuick);
  const Duration behind = SpinPolicy::kLimit + 50us;
  ASSERT_LT(behind, SpinPolicy::kSoon);
  EXPECT_LE(looks(policy, behind, 1000), 10);
  EXPECT_LE(looks(policy, behind, 100'000), 100);
}

TEST(SpinPolicyTest, OneSuccessMakesUpForAllThatWasInVain) {
  SpinPolicy policy;
  policy.look();
  policy.waited(kQuick);
  looks(policy, SpinPolicy::kLimit + 50us, 100);
  looks(policy, kQuick, 2000);  // the rest of the time out
  EXPECT_EQ(looks(policy, kQuick, 100), 100);
  policy.look();
  policy.waited(SpinPolicy::kLimit + 50us);
  EXPECT_EQ(looks(policy, kQuick, 3), 2);  // one time out only
}

}  // namespace
}  // namespace fantail
