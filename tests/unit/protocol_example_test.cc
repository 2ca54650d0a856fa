// The worked examples of docs/protocol.md, taken from the page itself: their bytes were put together by hand, so that
// neither the page nor this test trusts the encoder.
#include <gmock/gmock.h>

#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "common/base/digest.h"
#include "common/wire/codec.h"

namespace fantail::wire {
namespace {

using Bytes = std::span<const std::byte>;
using Blocks = std::map<std::string, std::vector<std::byte>>;

/// Every block that begins with "```hex NAME", by name. On each line, what is right of '|' is explanation.
Blocks hex_blocks(const std::string& path) {
  Blocks blocks;
  std::ifstream page(path);
  std::vector<std::byte>* block = nullptr;
  for (std::string line; std::getline(page, line);) {
    constexpr std::string_view kBegin = "```hex ";
    if (line.starts_with(kBegin)) {
      block = &blocks[line.substr(kBegin.size())];
    } else if (line.starts_with("```")) {
      block = nullptr;
    } else if (block != nullptr) {
      std::istringstream digits(line.substr(0, line.find('|')));
      for (std::string byte; digits >> byte;) block->push_back(static_cast<std::byte>(std::stoi(byte, nullptr, 16)));
    }
  }
  return blocks;
}

class ProtocolExampleTest : public testing::Test {
 protected:
  Bytes block(const std::string& name) {
    EXPECT_TRUE(blocks.contains(name)) << "docs/protocol.md has no block ```hex " << name;
    return blocks[name];
  }
  Blocks blocks = hex_blocks(FANTAIL_SOURCE_DIR "/docs/protocol.md");
};

Chunk example_chunk() {
  Chunk m;
  m.stream = {0x0011223344556677, 0x8899aabbccddeeff};
  m.offset = {4096};
  m.raw_length = 15;
  m.read_time = {1'795'367'045'123'456'789};
  return m;
}

TEST_F(ProtocolExampleTest, ChunkDecodesToWhatThePageSays) {
  const auto topic = as_text(block("chunk.topic"));
  const auto payload = block("chunk.payload");
  EXPECT_EQ(topic, chunk_topic_frame("web/access"));
  EXPECT_EQ(as_text(payload), "hello, fantail\n");

  const auto envelope = open_envelope(topic, block("chunk.header"), payload);
  ASSERT_TRUE(envelope) << envelope.error().context;
  EXPECT_EQ(envelope->kind, Kind::kChunk);
  const auto chunk = decode_chunk(envelope->body, payload);
  ASSERT_TRUE(chunk) << chunk.error().context;
  EXPECT_EQ(*chunk, example_chunk());
}

TEST_F(ProtocolExampleTest, PingDecodesToWhatThePageSays) {
  const auto envelope = open_envelope({}, block("ping.header"), {});
  ASSERT_TRUE(envelope) << envelope.error().context;
  EXPECT_EQ(envelope->kind, Kind::kPing);
  EXPECT_EQ(decode_ping(envelope->body), Ping{42});
}

TEST_F(ProtocolExampleTest, DigestIsTakenOverTheFramesInTheOrderThatThePageSays) {
  const auto header = block("chunk.header");
  std::vector<std::byte> all;
  for (const Bytes part : {block("chunk.topic"), header.first(8), header.subspan(16), block("chunk.payload")}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  std::uint64_t stored = 0;
  for (std::size_t i = 0; i < 8; ++i) stored |= std::uint64_t(header[8 + i]) << (8 * i);
  EXPECT_EQ(digest(all), stored);
}

TEST_F(ProtocolExampleTest, PrefixOfTheExampleIsWhatTheEncoderWrites) {
  Encoder encoder;
  const auto ours = encoder.chunk(example_chunk(), chunk_topic_frame("web/access"), block("chunk.payload"));
  const auto theirs = block("chunk.header");
  ASSERT_GE(theirs.size(), kPrefixBytes);
  EXPECT_TRUE(std::equal(ours.begin(), ours.begin() + 8, theirs.begin()));
}

}  // namespace
}  // namespace fantail::wire
