// The same work one after the other, and in processes at the same time: same results, in the same order.
#include <chrono>
#include <cstdio>
#include <thread>

#include "examples/state/example.h"

using namespace example;

namespace {

Json fetch_page(const Json& number) {
  std::this_thread::sleep_for(50ms);  // the network
  return "page " + std::to_string(number.get<int>());
}

}  // namespace

int main() {
  const std::vector<Json> pages = {1, 2, 3, 4, 5, 6};
  Json one_by_one = Json::array();
  const MonoTime begin = mono_now();
  for (const Json& page : pages) one_by_one.push_back(fetch_page(page));
  const MonoTime between = mono_now();
  ProcessGroup group;
  Json together = Json::array();
  for (const std::size_t index : need(group.start_each(process(fetch_page, {}), pages))) {
    group.wait_for(index, {});
    together.push_back(group.ending(index)->result);
  }
  std::printf("%s\n", one_by_one == together ? "the same" : "different");
  std::fprintf(stderr, "one by one %lld ms, together %lld ms\n",
               static_cast<long long>(to_milliseconds(between - begin)),
               static_cast<long long>(to_milliseconds(mono_now() - between)));
}
