// The part of Tailer that works while its registry is being rebuilt: it asks consumers what they know of the streams of
// this node, and takes up its work when that is in. Until then no file becomes a stream.
#include "producer/rebuild.h"
#include "producer/tracked.h"

namespace fantail {

void Tailer::start_rebuilding() {
  publisher_->hold();
  std::set<FileKey> present;
  matched_ = discovery_.scan([&](const std::string& path, const Selection&) {
    if (const auto key = key_of(path)) present.insert(*key);
  });
  log::warn("rebuilding the registry: waiting for what consumers know", {{"files", present.size()}});
  recollection_ = std::make_unique<Recollection>(std::move(present));
}

std::size_t Tailer::go_on_rebuilding() {
  Discovery::Changes not_needed;  // everything is looked at when it is done
  std::size_t work = discovery_.read_events(not_needed) ? 1 : 0;
  while (const auto question = recollection_->next_question(now_)) {
    recollection_->asked(question->peer, now_);  // if it does not get through, it is asked again
    publisher_->ask(question->peer, question->after);
    ++work;
  }
  if (!recollection_->enough(now_) || now_ < next_save_) return work;
  if (!finish_rebuilding()) next_save_ = now_ + 1s;
  return work + 1;
}

bool Tailer::finish_rebuilding() {
  const auto failed = [this](const Error& error) {
    if (const auto n = save_error_log_.occurred(now_)) {
      log::error("cannot record the rebuilt registry, files wait", {{"error", error}, {"count", *n}});
    }
    return false;
  };
  FilesThere files;
  files.selects = [this](const std::string& path) { return discovery_.selection_of(path) != nullptr; };
  discovery_.scan([&](const std::string& path, const Selection&) {
    if (const auto key = key_of(path)) files.selected.emplace(*key, path);
  });
  const Rebuilt rebuilt = rebuild(*recollection_, files, discovery_.from_end_anywhere(), &archive_budget_);
  if (registry_.rebuilding()) {
    if (auto ok = registry_.finish_rebuilding(rebuilt.streams, rebuilt.last_sequence); !ok) return failed(ok.error());
  }
  const auto answers = recollection_->answers();
  if (auto ok = begin(); !ok) return failed(ok.error());
  recollection_.reset();
  for (const wire::StreamInfo& info : rebuilt.over) {
    // Whoever has it learns that it is complete; nobody needs it any more.
    publisher_->add(info, nullptr, wire::LossReason::kDeleted);
    publisher_->seal(info.stream, info.head, wire::LossReason::kDeleted);
    publisher_->remove(info.stream);
  }
  publisher_->release();
  log::info("the registry is rebuilt", {{"recovered", rebuilt.recovered},
                                        {"gone", rebuilt.streams.size() - rebuilt.recovered},
                                        {"new", counters_.streams_created},
                                        {"ignored", rebuilt.ignored},
                                        {"consumers", answers}});
  return true;
}

void Tailer::on_consumer_up(PeerId peer, const wire::Peer& who) {
  if (recollection_) recollection_->consumer_up(peer, !who.durable_name.empty(), now_);
}

void Tailer::on_consumer_down(PeerId peer) {
  if (recollection_) recollection_->consumer_down(peer);
}

void Tailer::on_known(PeerId peer, const wire::Streams& known) {
  if (recollection_) recollection_->told(peer, known, now_);
}

}  // namespace fantail
