#pragma once

namespace fantail {

/// Whether something holds for every element of a map, for who asks again and again: looks first at the element that it
/// did not hold for last, and goes round from there. Asking costs what has become true meanwhile. One thread.
template <typename Key>
class AllOf {
 public:
  template <typename Map, typename Holds>
  bool ask(const Map& map, Holds&& holds) {
    auto first = map.find(missing_);
    if (first == map.end()) first = map.begin();
    const auto all_in = [&](auto from, auto to) {
      for (; from != to; ++from) {
        if (holds(*from)) continue;
        missing_ = from->first;
        return false;
      }
      return true;
    };
    return all_in(first, map.end()) && all_in(map.begin(), first);
  }

 private:
  Key missing_{};
};

}  // namespace fantail
