#pragma once

#include <string>
#include <vector>

namespace fantail {

/// Lines of columns for people. Those that are numbers stand at the right edge of their column.
class Table {
 public:
  struct Column {
    std::string title;
    bool right = false;
  };
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  /// As many cells as there are columns. Control characters are shown as \xNN.
  void add(std::vector<std::string> cells);
  bool empty() const { return rows_.empty(); }
  /// With the titles, each line with its end.
  std::string text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace fantail
