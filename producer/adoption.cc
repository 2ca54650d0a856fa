#include "producer/adoption.h"

#include <algorithm>

#include "common/base/digest.h"

namespace fantail {
namespace {

using Tail = std::array<std::byte, Fingerprint::kTailBytes>;

std::string_view name_of(std::string_view path) { return path.substr(path.rfind('/') + 1); }

/// The name before its first dot; the dot of a hidden file is none.
std::string_view stem_of(std::string_view name) { return name.substr(0, name.find('.', 1)); }

bool grows_from(std::string_view name, std::string_view stem) {
  if (stem.empty() || !name.starts_with(stem)) return false;
  return name.size() == stem.size() || std::string_view(".-_~").find(name[stem.size()]) != std::string_view::npos;
}

/// The bytes that end at `end`; fewer than a whole tail are only read where there are no more before it.
std::span<const std::byte> read_tail(Content& content, std::uint64_t end, Tail& space) {
  const auto tail = std::span(space).first(std::min<std::uint64_t>(end, space.size()));
  const auto n = content.read_at(end - tail.size(), tail);
  return n && *n == tail.size() ? std::span<const std::byte>(tail) : std::span<const std::byte>();
}

}  // namespace

Newcomer::Newcomer(Content& content) : content_(content) {
  const auto n = content_.read_at(0, head_);
  head_length_ = n ? std::min<std::uint64_t>(*n, content_.size()) : 0;
}

bool Newcomer::begins_like(const Fingerprint& stream) {
  if (stream.head_length == 0 || head_length_ < stream.head_length) return false;
  const auto [known, first_time] = digests_.try_emplace(stream.head_length);
  if (first_time) known->second = digest(std::span(head_).first(stream.head_length));
  return known->second == stream.head_digest;
}

Newcomer::Likeness Newcomer::likeness(const Fingerprint& stream) {
  if (head_length_ == 0 || stream.head_length == 0) return Likeness::kNo;
  // While it is copied it may be shorter than the beginning that is known.
  if (head_length_ < stream.head_length) return Likeness::kIfKin;
  return begins_like(stream) ? Likeness::kYes : Likeness::kNo;
}

/// Whether what was read of the stream is in it, as far as can be told: its beginning and the bytes before its cursor.
bool Newcomer::continues(const Fingerprint& stream) {
  if (!begins_like(stream) || content_.size() < stream.cursor.raw) return false;
  if (stream.cursor.raw == 0) return true;
  Tail space;
  const auto tail = read_tail(content_, stream.cursor.raw, space);
  return !tail.empty() && digest(tail) == stream.tail_digest;
}

/// Whether `original` begins with all of it, as far as can be told: its beginning and its last bytes.
bool Newcomer::is_beginning_of(Content& original) {
  const std::uint64_t size = content_.size();
  if (head_length_ == 0 || original.size() < size) return false;
  std::array<std::byte, Fingerprint::kHeadBytes> head;
  const auto n = original.read_at(0, std::span(head).first(head_length_));
  if (!n || *n < head_length_ || !std::equal(head.begin(), head.begin() + *n, head_.begin())) return false;
  Tail ours;
  Tail theirs;
  const auto tail = read_tail(content_, size, ours);
  return !tail.empty() && std::ranges::equal(tail, read_tail(original, size, theirs));
}

Verdict Newcomer::compare(const KnownStream& stream) {
  const bool whole_head_known = stream.fingerprint.head_length == Fingerprint::kHeadBytes;
  switch (stream.state) {
    case KnownStream::State::kReadable:
      if (stream.original == nullptr || !is_beginning_of(*stream.original)) return Verdict::kStranger;
      if (head_length_ == Fingerprint::kHeadBytes) return Verdict::kCopy;
      // So short that it may be another file with the same first lines. A rotator truncates the original right after.
      return stream.kin ? Verdict::kWait : Verdict::kStranger;
    case KnownStream::State::kAway:
      return (whole_head_known || stream.kin) && continues(stream.fingerprint) ? Verdict::kWait : Verdict::kStranger;
    case KnownStream::State::kGone:
      return (whole_head_known || stream.kin) && continues(stream.fingerprint) ? Verdict::kBacking : Verdict::kStranger;
    case KnownStream::State::kOver: break;
  }
  const bool nothing_more = content_.size() == stream.fingerprint.cursor.raw;
  return whole_head_known && nothing_more && continues(stream.fingerprint) ? Verdict::kCopy : Verdict::kStranger;
}

bool are_kin(std::string_view path, std::string_view other_path) {
  const std::string_view name = name_of(path);
  const std::string_view other = name_of(other_path);
  return grows_from(name, stem_of(other)) || grows_from(other, stem_of(name));
}

}  // namespace fantail
