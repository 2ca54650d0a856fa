#include "common/stream/pacing.h"

#include <gmock/gmock.h>

namespace fantail {
namespace {

constexpr MonoTime kStart = MonoTime{} + 1h;

/// Sends messages of `bytes` as fast as the bucket lets, for `span`; returns the bytes sent.
std::size_t send_for(TokenBucket& bucket, Duration span, std::size_t bytes) {
  std::size_t sent = 0;
  for (MonoTime now = kStart; now < kStart + span; now += 100us) {
    while (bucket.may_send(now)) {
      bucket.sent(bytes);
      sent += bytes;
    }
  }
  return sent;
}

TEST(TokenBucketTest, HoldsItsRateWhateverTheSizeOfMessages) {
  for (const std::size_t bytes : {100U, 1400U, 64'000U}) {
    TokenBucket bucket(1'000'000, 10'000);
    EXPECT_NEAR(static_cast<double>(send_for(bucket, 10s, bytes)), 10e6, 0.01 * 10e6 + 10'000 + 64'000) << bytes;
  }
}

TEST(TokenBucketTest, SavesUpNoMoreThanItsBurst) {
  TokenBucket bucket(1'000'000, 10'000);
  send_for(bucket, 1s, 1000);
  std::size_t burst = 0;
  while (bucket.may_send(kStart + 1h)) {
    bucket.sent(1000);
    burst += 1000;
  }
  EXPECT_EQ(burst, 10'000U);
}

TEST(TokenBucketTest, TellsWhenItWillBeReady) {
  TokenBucket bucket(1'000'000, 1000);
  EXPECT_EQ(bucket.ready_at(kStart), kStart);
  bucket.sent(101'000);
  const MonoTime ready = bucket.ready_at(kStart);
  EXPECT_NEAR(static_cast<double>(to_milliseconds(ready - kStart)), 100, 1);
  EXPECT_FALSE(bucket.may_send(ready - 1ms));
  EXPECT_TRUE(bucket.may_send(ready + 1ms));
}

TEST(TokenBucketTest, WithoutARateItNeverWaits) {
  TokenBucket bucket(0, 1);
  bucket.sent(1'000'000'000);
  EXPECT_TRUE(bucket.may_send(kStart));
}

class PatienceTest : public testing::Test {
 protected:
  /// How long a standstill that begins now lasts until patience ends (at most `limit`).
  Duration wait_for(std::size_t receivers, Duration limit = 1s) {
    const MonoTime begin = now;
    while (now - begin < limit && !patience.exhausted(now, receivers)) now += 1ms;
    const Duration waited = now - begin;
    patience.sent(now);
    return waited;
  }
  MonoTime now = kStart;
  Patience patience{200ms};
};

TEST_F(PatienceTest, ALoneReceiverGetsAllOfItEachTime) {
  for (int i = 0; i < 5; ++i) EXPECT_EQ(wait_for(1), 200ms);
}

TEST_F(PatienceTest, BesideOthersItIsUsedUp) {
  EXPECT_EQ(wait_for(2), 200ms);
  EXPECT_LT(wait_for(2), 10ms);
  EXPECT_LT(wait_for(2), 10ms);
}

TEST_F(PatienceTest, ItComesBackAtATenthOfTheTime) {
  wait_for(2);
  now += 1s;
  EXPECT_NEAR(static_cast<double>(to_milliseconds(wait_for(2))), 100, 2);
  now += 1h;
  EXPECT_EQ(wait_for(2), 200ms);
}

TEST_F(PatienceTest, AShortStandstillCostsOnlyWhatItLasted) {
  EXPECT_FALSE(patience.exhausted(now, 2));
  now += 50ms;
  EXPECT_FALSE(patience.exhausted(now, 2));
  EXPECT_TRUE(patience.blocked());
  patience.sent(now);
  EXPECT_FALSE(patience.blocked());
  EXPECT_EQ(wait_for(2), 150ms);
}

TEST(MessageSizerTest, IsFixedWhereNothingGetsLost) {
  MessageSizer sizer(256 * 1024, false);
  sizer.lost(kStart);
  EXPECT_EQ(sizer.bytes(), 256U * 1024);
}

TEST(MessageSizerTest, ShrinksWithLossDownToOnePacketAndGrowsWhileClean) {
  MessageSizer sizer(256 * 1024, true);
  const std::uint32_t first = sizer.bytes();
  EXPECT_EQ(first, 8U * 1024);
  MonoTime now = kStart;
  sizer.lost(now);
  EXPECT_EQ(sizer.bytes(), first / 2);
  sizer.lost(now + 10ms);
  EXPECT_EQ(sizer.bytes(), first / 2) << "reports of one burst count once";
  for (int i = 0; i < 20; ++i) sizer.lost(now += 1s);
  EXPECT_GE(sizer.bytes(), 1000U);
  EXPECT_LE(sizer.bytes(), 1400U);
  for (int i = 0; i < 200; ++i) sizer.sent(now += 100ms);
  EXPECT_EQ(sizer.bytes(), 256U * 1024);
}

TEST(MessageSizerTest, NeverExceedsASmallLimit) {
  MessageSizer sizer(4096, true);
  EXPECT_EQ(sizer.bytes(), 4096U);
}

class CompressionPolicyTest : public testing::Test {
 protected:
  /// `span` at a wire that takes `bytes_per_s` and blocks for `blocked_share` of the time.
  void run(Duration span, double bytes_per_s, double blocked_share) {
    for (const MonoTime until = now + span; now < until; now += 1ms) {
      policy.tick(now);
      policy.sent(static_cast<std::size_t>(bytes_per_s / 1000));
      policy.waited(std::chrono::duration_cast<Duration>(std::chrono::duration<double, std::milli>(blocked_share)));
    }
    policy.tick(now);
  }
  MonoTime now = kStart;
  CompressionPolicy policy;
};

TEST_F(CompressionPolicyTest, AWireThatKeepsUpGetsRawBytes) {
  run(1s, 500e6, 0);
  EXPECT_FALSE(policy.compress());
}

TEST_F(CompressionPolicyTest, ASlowWireGetsCompressedOnes) {
  run(1s, 10e6, 0.9);
  EXPECT_TRUE(policy.compress());
}

TEST_F(CompressionPolicyTest, AWireFasterThanTheCompressorGetsRawBytesThoughItBlocks) {
  for (int i = 0; i < 100; ++i) policy.compressed(1'000'000, 10ms);  // 100 MB/s
  run(1s, 500e6, 0.5);
  EXPECT_FALSE(policy.compress());
}

TEST_F(CompressionPolicyTest, WhenTheWireIsFreeAgainItStopsAfterAWhile) {
  run(500ms, 10e6, 0.9);
  run(300ms, 10e6, 0);
  EXPECT_TRUE(policy.compress());
  run(1s, 10e6, 0);
  EXPECT_FALSE(policy.compress());
}

}  // namespace
}  // namespace fantail
