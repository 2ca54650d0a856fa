#pragma once

#include <gmock/gmock.h>
#include <zstd.h>

#include <algorithm>
#include <filesystem>
#include <list>
#include <set>

#include "common/base/digest.h"
#include "common/base/log.h"
#include "consumer/file_sink.h"
#include "tests/support/scratch_directory.h"

namespace fantail {

namespace fs = std::filesystem;

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::size_t kLimit = 2000;
constexpr std::size_t kChunk = 30'000;  // some lines of this size are written at once, without the buffer

/// What `zstd -dc` prints of whole frames; nothing when it would complain.
inline std::optional<std::string> unpacked(const std::string& frames) {
  std::string out;
  for (std::size_t at = 0; at < frames.size();) {
    const std::size_t length = ZSTD_findFrameCompressedSize(frames.data() + at, frames.size() - at);
    if (ZSTD_isError(length) != 0) return std::nullopt;
    const auto size = ZSTD_getFrameContentSize(frames.data() + at, length);
    const std::size_t before = out.size();
    out.resize(before + size);
    if (ZSTD_decompress(out.data() + before, size, frames.data() + at, length) != size) return std::nullopt;
    at += length;
  }
  return out;
}

/// A FileSink over a store of its own, without any consumer around it.
class FileSinkTest : public testing::Test {
 protected:
  FileSinkTest() {
    log::set_up(log::Level::kOff);
    start();
  }
  ~FileSinkTest() override { log::set_up(log::Level::kInfo); }

  void start() {
    std::string set_aside;
    state.emplace(*StateDirectory::open(scratch.path() / "state"));
    store.emplace(*CursorStore::open(*state, set_aside));
    sink = *FileSink::open(*PathTemplate::parse(scratch / name), *RecordFormat::parse(format), rules, rotation, *store,
                           [this] { return now; });
  }
  void use(const std::string& file_name, const std::string& record_format = "raw") {
    name = file_name;
    format = record_format;
    restart();
  }
  /// The process dies; only what was stored is remembered.
  void restart() {
    sink.reset();
    store.reset();
    state.reset();
    start();
  }
  void commit() {
    const Checkpoint checkpoint = take_checkpoint();
    save(checkpoint);
    sink->stored();
  }
  Checkpoint take_checkpoint() {
    EXPECT_TRUE(sink->flush({}));
    EXPECT_TRUE(sink->prepare_checkpoint());
    EXPECT_TRUE(sink->drained());
    return sink->checkpoint();
  }
  void save(const Checkpoint& checkpoint) {
    ASSERT_TRUE(store->save({{sink->key(), checkpoint.positions, checkpoint.outputs}}, {}));
  }
  StreamMeta& stream(std::uint64_t n, const std::string& topic = "log") {
    StreamMeta& meta = metas.emplace_back();
    meta.stream = {n, n};
    meta.node_name = meta.node_dir = "host";
    meta.topic = topic;
    meta.path = "/log/" + std::to_string(n);
    return meta;
  }
  /// Where it has to go on.
  std::uint64_t open(const StreamMeta& meta) {
    return sink->open_stream(meta, store->cursor(sink->key(), meta.stream).value_or(FileOffset{}))->raw;
  }
  bool write(const StreamMeta& meta, std::uint64_t offset, std::string_view text, std::int64_t time_ns = 0) {
    return sink->write(meta, {offset}, as_bytes(text), {time_ns}).has_value();
  }
  std::string in(const std::string& file) {
    EXPECT_TRUE(sink->flush({}));
    return test::contents(scratch / file);
  }

  test::ScratchDirectory scratch;
  std::string name = "out.log";
  std::string format = "raw";
  LineRules rules;
  Rotation rotation;
  WallTime now{1'800'000'000'000'000'000};
  std::optional<StateDirectory> state;
  std::optional<CursorStore> store;
  std::unique_ptr<FileSink> sink;
  std::list<StreamMeta> metas;
};

/// One stream of numbered lines into one path, which may be compressed; what is in all files of that path together.
class FileRotationTest : public FileSinkTest, public testing::WithParamInterface<const char*> {
 protected:
  FileRotationTest() { begin_with({kLimit, {}}); }

  void begin_with(Rotation when) {
    rotation = when;
    use(GetParam());
    from = open(meta);
  }
  bool compressed() const { return name.ends_with(".zst"); }

  /// The stream gets more lines, and so does the sink as far as it takes them.
  void lines(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      const auto number = next_++;
      // Hard to compress, so that compressed files get long, too.
      source += std::to_string(number) + " " + std::to_string(number * 0x9E3779B97F4A7C15U) + "\n";
    }
    deliver();
  }
  void deliver() {
    while (from < source.size() && write(meta, from, std::string_view(source).substr(from, kChunk))) {
      from = std::min(from + kChunk, source.size());
    }
  }
  /// The process dies and is started again.
  void crash() {
    restart();
    from = open(meta);
  }
  void finish() {
    deliver();
    commit();
    deliver();
    commit();
    EXPECT_EQ(from, source.size());
  }
  std::string path() const { return scratch / name; }
  std::string content(const std::string& file) const {
    const std::string bytes = test::contents(file);
    if (!compressed()) return bytes;
    const auto text = unpacked(bytes);
    EXPECT_TRUE(text) << file << " does not end with a frame";
    return text.value_or("");
  }
  /// Every file beside the state, but not the one that is written to.
  std::set<std::string> others() const {
    std::set<std::string> out;
    for (const auto& entry : fs::directory_iterator(scratch.path())) {
      if (!entry.is_directory() && entry.path() != path()) out.insert(entry.path().filename());
    }
    return out;
  }
  /// The lines of all files, in the order of the stream.
  std::string everything() const {
    std::vector<std::string> parts = {content(path())};
    for (const auto& file : others()) parts.push_back(content(scratch / file));
    const auto first_number = [](const std::string& text) { return text.empty() ? 0 : std::stoull(text); };
    std::sort(parts.begin(), parts.end(),
              [&](const auto& a, const auto& b) { return first_number(a) < first_number(b); });
    std::string out;
    for (const auto& part : parts) {
      EXPECT_TRUE(part.empty() || part.ends_with('\n'));
      out += part;
    }
    return out;
  }
  std::string stamped(const std::string& stamp) const {
    return compressed() ? "out.log." + stamp + ".zst" : "out.log." + stamp;
  }

  std::string source;
  std::uint64_t from = 0;
  const StreamMeta& meta = stream(1);

 private:
  std::uint64_t next_ = 1;
};

}  // namespace fantail
