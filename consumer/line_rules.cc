#include "consumer/line_rules.h"

#include <algorithm>

namespace fantail {

bool RecordFilter::takes(std::string_view text) const {
  const auto found = [&](const Regex& regex) { return regex.found_in(text); };
  return (include.empty() || std::any_of(include.begin(), include.end(), found)) &&
         std::none_of(exclude.begin(), exclude.end(), found);
}

bool LineRules::plain() const {
  return cut.max_bytes == LineCut{}.max_bytes && cut.long_lines == LongLines::kSplit &&
         cut.encoding == TextEncoding::kPlain && !cut.strip_carriage_return && multiline == nullptr &&
         filter == nullptr;
}

RecordCounters& RecordCounters::operator+=(const RecordCounters& other) {
  lines_split += other.lines_split;
  lines_truncated += other.lines_truncated;
  lines_skipped += other.lines_skipped;
  characters_replaced += other.characters_replaced;
  records_split += other.records_split;
  records_filtered += other.records_filtered;
  return *this;
}

}  // namespace fantail
