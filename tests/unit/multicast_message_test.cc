#include "common/transport/multicast_message.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

namespace fantail {
namespace {

BroadcastMessage message(std::string_view topic, std::string_view header, std::string_view payload) {
  return {Frame::copy_of(topic), Frame::copy_of(header), Frame::copy_of(payload)};
}

TEST(MulticastMessageTest, ThreePartsBecomeOneAndThreeAgain) {
  const Frame packed = pack_multicast(message("d/web/", "header", "payload"));
  EXPECT_EQ(packed.text(), std::string("d/web/headerpayload") + std::string("\6\0\0\0\6\0\0\0", 8));
  const auto back = unpack_multicast(packed);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->topic.text(), "d/web/");
  EXPECT_EQ(back->header.text(), "header");
  EXPECT_EQ(back->payload.text(), "payload");
}

TEST(MulticastMessageTest, PartsMayBeEmpty) {
  const auto back = unpack_multicast(pack_multicast(message("", "", "")));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->topic.size() + back->header.size() + back->payload.size(), 0U);
}

TEST(MulticastMessageTest, WhatIsShorterThanItsSizesIsRefused) {
  const Frame good = pack_multicast(message("d/", "head", ""));
  for (std::size_t length = 0; length < good.size(); ++length) {
    const auto back = unpack_multicast(Frame::copy_of(good.text().substr(0, length)));
    if (back) {
      EXPECT_LE(back->topic.size() + back->header.size() + 8, length);
    }
  }
  EXPECT_FALSE(unpack_multicast(Frame::copy_of(std::string_view("1234567"))));
}

TEST(MulticastMessageTest, SizesThatOverflowTogetherAreRefused) {
  std::string huge = "topic" + std::string("\3\0\0\0\xff\xff\xff\xff", 8);
  EXPECT_FALSE(unpack_multicast(Frame::copy_of(huge)));
  huge = "topic" + std::string("\xff\xff\xff\xff\3\0\0\0", 8);
  EXPECT_FALSE(unpack_multicast(Frame::copy_of(huge)));
  huge = "topic" + std::string("\3\0\0\0\3\0\0\0", 8);
  EXPECT_FALSE(unpack_multicast(Frame::copy_of(huge)));
}

}  // namespace
}  // namespace fantail
