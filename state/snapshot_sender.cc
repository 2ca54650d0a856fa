#include "state/snapshot_sender.h"

#include <algorithm>

#include "common/json/json.h"

namespace fantail::state {
namespace {

constexpr std::size_t kPieceBytes = 256 * 1024;
constexpr std::size_t kBufferBytes = 2 * kPieceBytes;  // the last entry of a piece may be large
constexpr std::size_t kBuffersKept = 16;
constexpr std::size_t kBytesOut = 8 * 1024 * 1024;
constexpr std::size_t kJobsATurn = 8;

}  // namespace

SnapshotSender::SnapshotSender(const StateStore& store, rpc::RpcServer& rpc)
    : store_(store), rpc_(rpc), pool_(kBufferBytes, kBuffersKept) {}

void SnapshotSender::start(const rpc::Caller& caller, std::string name_space, std::string prefix) {
  jobs_.push_back({caller, name_space, std::move(prefix), store_.revision(), name_space, {}});
}

void SnapshotSender::forget(const rpc::Caller& caller) {
  std::erase_if(jobs_, [&](const Job& job) { return job.caller == caller; });
}

/// The lines in a counted buffer; what is larger than one, because of a single large value, is counted by nobody.
Frame SnapshotSender::frame_of_lines() {
  FramePool::Buffer buffer = pool_.take();
  if (lines_.size() > buffer.bytes().size()) return Frame::copy_of(lines_);
  std::copy(lines_.begin(), lines_.end(), reinterpret_cast<char*>(buffer.bytes().data()));
  return pool_.to_frame(std::move(buffer), lines_.size());
}

/// `more`: what it has to be called for again. False: its queue is full, nothing was sent.
bool SnapshotSender::send_piece(Job& job, bool& more) {
  lines_.clear();
  std::string at_name_space = job.at_name_space;
  std::string at_key = job.at_key;
  more = false;
  store_.scan_after(job.at_name_space, job.at_key, [&](const EntryView& entry) {
    if (!job.name_space.empty() && entry.name_space != job.name_space) return false;
    more = lines_.size() >= kPieceBytes;
    if (more) return false;
    at_name_space = entry.name_space;
    at_key = entry.key;
    if (entry.key.starts_with(job.prefix)) append_line(lines_, entry);
    return true;
  });
  if (!lines_.empty() && !rpc_.partial(job.caller, frame_of_lines())) {
    more = true;
    return false;
  }
  job.at_name_space = std::move(at_name_space);
  job.at_key = std::move(at_key);
  return true;
}

std::size_t SnapshotSender::turn() {
  std::size_t sent = 0;
  for (std::size_t n = std::min(jobs_.size(), kJobsATurn); n > 0; --n) {
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    bool more = true;
    const bool room = rpc_.has_room(job.caller) && pool_.bytes_out() < kBytesOut;
    if (room && send_piece(job, more)) ++sent;
    if (more) {
      jobs_.push_back(std::move(job));
    } else {
      rpc_.reply(job.caller, to_text({{"begin", job.begin}, {"end", store_.revision()}}));
    }
  }
  return sent;
}

}  // namespace fantail::state
