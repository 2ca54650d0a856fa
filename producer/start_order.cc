#include "producer/start_order.h"

#include <algorithm>
#include <utility>

namespace fantail {
namespace {

std::int64_t modification_time(const FoundFile& file) { return file.status.modified.ns; }
std::int64_t modification_time(const StreamRecord& record) {
  const auto status = status_of(record.current_path);
  return status ? status->modified.ns : 0;
}

const std::string& path_of(const FoundFile& file) { return file.path; }
const std::string& path_of(const StreamRecord& record) { return record.current_path; }

template <class Item>
void arrange_items(std::vector<Item>& items, StartOrder order) {
  if (order == StartOrder::kName) {
    std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return path_of(a) < path_of(b); });
    return;
  }
  std::vector<std::pair<std::int64_t, std::size_t>> turns;
  turns.reserve(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::int64_t time = modification_time(items[i]);
    turns.emplace_back(order == StartOrder::kNewest ? -time : time, i);
  }
  std::sort(turns.begin(), turns.end());
  std::vector<Item> arranged;
  arranged.reserve(items.size());
  for (const auto& [time, i] : turns) arranged.push_back(std::move(items[i]));
  items = std::move(arranged);
}

}  // namespace

void arrange(std::vector<FoundFile>& files, StartOrder order) { arrange_items(files, order); }
void arrange(std::vector<StreamRecord>& records, StartOrder order) { arrange_items(records, order); }

}  // namespace fantail
