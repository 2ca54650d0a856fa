#include "common/stream/streams_page.h"

#include <gmock/gmock.h>

#include <string>

#include "common/wire/codec.h"

namespace fantail {
namespace {

wire::StreamInfo longest(std::size_t path, std::size_t topic) {
  wire::StreamInfo info;
  info.stream = {~0ULL, ~0ULL};
  info.sequence = ~0ULL >> 2;
  info.path = "/" + std::string(path - 1, 'p');
  info.topic = std::string(topic, 't');
  info.base = info.sent = info.head = info.committed = {~0ULL >> 2};
  info.first_seen = {1};
  info.sealed = true;
  info.file = {~0ULL, ~0ULL, wire::kMaxIdentityHeadBytes, ~0ULL};
  return info;
}

class StreamsPageTest : public testing::TestWithParam<std::pair<std::size_t, std::size_t>> {};

/// A message that is too long would be refused, and asked for again for ever.
TEST_P(StreamsPageTest, AFullOneIsWithinTheLimitsOfAMessage) {
  const auto [path, topic] = GetParam();
  StreamsPage page(true);
  std::size_t count = 0;
  for (; page.has_room(); ++count) page.add(longest(path, topic));
  wire::Encoder encoder;
  const auto header = encoder.streams(page.message(true));
  EXPECT_LE(header.size(), wire::kMaxHeaderBytes) << count << " streams";
  EXPECT_GE(header.size(), wire::kMaxHeaderBytes / 2) << count << " streams: room is wasted";
  const auto decoded = wire::decode_streams(header.subspan(wire::kPrefixBytes));
  ASSERT_TRUE(decoded) << decoded.error().context;
  EXPECT_EQ(decoded->streams.size(), count);
  EXPECT_TRUE(decoded->more);
}

INSTANTIATE_TEST_SUITE_P(Lengths, StreamsPageTest,
                         testing::Values(std::pair{1, 1}, std::pair{60, 8}, std::pair{255, 255},
                                         std::pair{wire::kMaxPathBytes, wire::kMaxTopicBytes}),
                         [](const auto& pair) { return std::to_string(pair.param.first) + "_byte_paths"; });

}  // namespace
}  // namespace fantail
