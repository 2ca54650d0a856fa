#include "producer/start_order.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

namespace fantail {
namespace {

std::int64_t modification_time(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return 0;
  return std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
}

const std::string& path_of(const std::string& path) { return path; }
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
    const std::int64_t time = modification_time(path_of(items[i]));
    turns.emplace_back(order == StartOrder::kNewest ? -time : time, i);
  }
  std::sort(turns.begin(), turns.end());
  std::vector<Item> arranged;
  arranged.reserve(items.size());
  for (const auto& [time, i] : turns) arranged.push_back(std::move(items[i]));
  items = std::move(arranged);
}

}  // namespace

void arrange(std::vector<std::string>& paths, StartOrder order) { arrange_items(paths, order); }
void arrange(std::vector<StreamRecord>& records, StartOrder order) { arrange_items(records, order); }

}  // namespace fantail
