#include <algorithm>

#include "common/wire/codec.h"

namespace fantail::wire {

std::string chunk_topic_frame(std::string_view topic) {
  std::string frame;
  frame.reserve(topic.size() + 3);
  frame += "d/";
  frame += topic;
  frame += '/';
  return frame;
}

std::string beacon_topic_frame(NodeId node) { return std::string(kBeaconSubscription) + to_string(node); }

std::string topic_subscription(std::string_view topic) { return topic.empty() ? "d/" : chunk_topic_frame(topic); }

bool topic_matches(std::string_view wanted, std::string_view topic) {
  if (wanted.empty()) return true;
  return topic.starts_with(wanted) && (topic.size() == wanted.size() || topic[wanted.size()] == '/');
}

std::optional<std::string> topic_problem(std::string_view topic) {
  if (topic.empty()) return "a topic must not be empty";
  if (topic.size() > kMaxTopicBytes) return "a topic has at most " + std::to_string(kMaxTopicBytes) + " bytes";
  if (topic.front() == '/' || topic.back() == '/') return "a topic must not begin or end with '/'";
  if (topic.find("//") != std::string_view::npos) return "a topic must not have an empty part ('//')";
  if (std::any_of(topic.begin(), topic.end(),
                  [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; })) {
    return "a topic must not have control characters";
  }
  return std::nullopt;
}

std::string_view to_string(LossReason reason) {
  switch (reason) {
    case LossReason::kUnknown: break;
    case LossReason::kStreamUnknown: return "stream unknown to its source";
    case LossReason::kTruncated: return "truncated or rewritten before it was delivered";
    case LossReason::kDeleted: return "deleted before it was delivered";
    case LossReason::kHoldExceeded: return "hold limit exceeded";
    case LossReason::kReadError: return "read error at the source";
    case LossReason::kArchiveDamaged: return "damaged or incomplete archive";
  }
  return "unknown reason";
}

}  // namespace fantail::wire
