#include "common/base/table.h"

#include <algorithm>
#include <cassert>

#include "common/base/options.h"

namespace fantail {

void Table::add(std::vector<std::string> cells) {
  assert(cells.size() == columns_.size());
  for (auto& cell : cells) cell = printable(cell);
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    std::size_t width = columns_[c].title.size();
    for (const auto& row : rows_) width = std::max(width, row[c].size());
    widths.push_back(width);
  }
  std::string out;
  const auto put = [&](const auto& cell_of) {
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      const std::string& cell = cell_of(c);
      const std::string space(widths[c] - cell.size(), ' ');
      const bool last = c + 1 == columns_.size();
      if (columns_[c].right) {
        out += space + cell;
      } else {
        out += last ? cell : cell + space;
      }
      if (!last) out += "  ";
    }
    out += '\n';
  };
  put([&](std::size_t c) -> const std::string& { return columns_[c].title; });
  for (const auto& row : rows_) put([&](std::size_t c) -> const std::string& { return row[c]; });
  return out;
}

}  // namespace fantail
