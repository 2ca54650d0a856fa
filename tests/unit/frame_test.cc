#include "common/transport/frame.h"

#include <gmock/gmock.h>
#include <malloc.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace fantail {
namespace {

constexpr std::size_t kBuffer = 64 * 1024;
constexpr std::size_t kLarge = 16 * 1024;  // travels in the buffer it was read into
constexpr std::size_t kSmall = 100;        // is copied

void fill(std::span<std::byte> bytes, char with) {
  std::fill(bytes.begin(), bytes.end(), static_cast<std::byte>(with));
}

TEST(FrameTest, IsEmptyToBeginWith) {
  const Frame frame;
  EXPECT_EQ(frame.size(), 0u);
  EXPECT_EQ(frame.text(), "");
}

TEST(FrameTest, HoldsACopyOfWhatItWasMadeFrom) {
  std::string text = "hello";
  const Frame small = Frame::copy_of(text);
  const std::string large_text(100'000, 'x');
  const Frame large = Frame::copy_of(large_text);
  text = "gone!";
  EXPECT_EQ(small.text(), "hello");
  EXPECT_EQ(large.text(), large_text);
  EXPECT_EQ(Frame::copy_of(std::span<const std::byte>{}).size(), 0u);
}

TEST(FrameTest, CanBeWrittenInPlace) {
  Frame frame = Frame::uninitialized(kLarge);
  fill(frame.writable(), 'a');
  EXPECT_EQ(frame.text(), std::string(kLarge, 'a'));
}

TEST(FrameTest, MovingHandsOverTheBytesAndLeavesAnEmptyFrame) {
  Frame first = Frame::copy_of(std::string(kLarge, 'a'));
  const auto* address = first.bytes().data();
  Frame second = std::move(first);
  EXPECT_EQ(second.bytes().data(), address);
  EXPECT_EQ(first.size(), 0u);  // NOLINT(bugprone-use-after-move): this is the promise

  Frame third = Frame::copy_of("old");
  third = std::move(second);
  EXPECT_EQ(third.bytes().data(), address);
  EXPECT_EQ(third.text(), std::string(kLarge, 'a'));
}

TEST(FrameTest, AssigningAFrameToItselfKeepsIt) {
  Frame frame = Frame::copy_of("hello");
  Frame& same = frame;
  frame = std::move(same);
  EXPECT_EQ(frame.text(), "hello");
}

TEST(FramePoolTest, BuffersAreCountedAsOutUntilTheyComeBack) {
  FramePool pool(kBuffer, 4);
  EXPECT_EQ(pool.bytes_out(), 0u);
  {
    const auto first = pool.take();
    const auto second = pool.take();
    EXPECT_EQ(first.bytes().size(), kBuffer);
    EXPECT_EQ(pool.bytes_out(), 2 * kBuffer);
  }
  EXPECT_EQ(pool.bytes_out(), 0u);
}

TEST(FramePoolTest, LargeFrameIsTheBufferItselfAndIsOutUntilTheFrameIsGone) {
  FramePool pool(kBuffer, 4);
  {
    auto buffer = pool.take();
    fill(buffer.bytes(), 'a');
    const auto* address = buffer.bytes().data();
    const Frame frame = pool.to_frame(std::move(buffer), kLarge);
    EXPECT_FALSE(buffer);  // NOLINT(bugprone-use-after-move): this is the promise
    EXPECT_EQ(frame.bytes().data(), address);
    EXPECT_EQ(frame.text(), std::string(kLarge, 'a'));
    EXPECT_EQ(pool.bytes_out(), kBuffer);
  }
  EXPECT_EQ(pool.bytes_out(), 0u);
}

TEST(FramePoolTest, SmallFrameIsACopyThatKeepsNoBuffer) {
  FramePool pool(kBuffer, 4);
  std::optional<Frame> frame;
  {
    auto buffer = pool.take();
    fill(buffer.bytes(), 'a');
    const auto* address = buffer.bytes().data();
    frame = pool.to_frame(std::move(buffer), kSmall);
    EXPECT_NE(frame->bytes().data(), address);
  }
  EXPECT_EQ(pool.bytes_out(), 0u);
  fill(pool.take().bytes(), 'b');
  EXPECT_EQ(frame->text(), std::string(kSmall, 'a'));
}

TEST(FramePoolTest, FrameOfNothingIsPossible) {
  FramePool pool(kBuffer, 4);
  EXPECT_EQ(pool.to_frame(pool.take(), 0).size(), 0u);
  EXPECT_EQ(pool.bytes_out(), 0u);
}

TEST(FramePoolTest, FrameMayUseTheWholeBuffer) {
  FramePool pool(kBuffer, 4);
  EXPECT_EQ(pool.to_frame(pool.take(), kBuffer).size(), kBuffer);
}

TEST(FramePoolTest, ReturnedBufferIsTheNextOneTaken) {
  FramePool pool(kBuffer, 4);
  const std::byte* address = pool.take().bytes().data();
  EXPECT_EQ(pool.take().bytes().data(), address);
}

TEST(FramePoolTest, KeepsNoMoreIdleBuffersThanToldTo) {
  constexpr std::size_t kHuge = 64 * 1024 * 1024;  // mapped by the allocator one by one, and never touched here
  const auto mapped = [] { return ::mallinfo2().hblkhd; };
  const std::size_t before = mapped();
  FramePool pool(kHuge, 1);
  {
    const auto a = pool.take();
    const auto b = pool.take();
    if (mapped() < before + 2 * kHuge) GTEST_SKIP() << "this allocator keeps no such count";
  }
  EXPECT_GE(mapped(), before + kHuge);
  EXPECT_LT(mapped(), before + 2 * kHuge);
}

TEST(FramePoolTest, BufferCanBeMovedAboutBeforeItIsUsed) {
  FramePool pool(kBuffer, 4);
  FramePool::Buffer later;
  EXPECT_FALSE(later);
  later = pool.take();
  EXPECT_TRUE(later);
  FramePool::Buffer moved = std::move(later);
  EXPECT_TRUE(moved);
  EXPECT_EQ(pool.bytes_out(), kBuffer);
}

TEST(FramePoolTest, FramesMayOutliveTheirPool) {
  std::vector<Frame> frames;
  FramePool::Buffer unused;
  {
    FramePool pool(kBuffer, 4);
    for (int i = 0; i < 3; ++i) {
      auto buffer = pool.take();
      fill(buffer.bytes(), 'a');
      frames.push_back(pool.to_frame(std::move(buffer), kLarge));
    }
    unused = pool.take();
  }
  EXPECT_EQ(frames.back().text(), std::string(kLarge, 'a'));
  frames.clear();
  fill(unused.bytes(), 'b');
}

TEST(FramePoolTest, FramesComeBackFromAnotherThread) {
  FramePool pool(kBuffer, 2);
  for (int round = 0; round < 50; ++round) {
    std::vector<Frame> frames;
    for (int i = 0; i < 4; ++i) frames.push_back(pool.to_frame(pool.take(), kLarge));
    std::thread other([gone = std::move(frames)]() mutable { gone.clear(); });
    const auto meanwhile = pool.take();  // beside the returns
    other.join();
    EXPECT_EQ(pool.bytes_out(), kBuffer);
  }
  EXPECT_EQ(pool.bytes_out(), 0u);
}

}  // namespace
}  // namespace fantail
