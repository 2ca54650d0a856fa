#include "common/base/program.h"

#include <malloc.h>
#include <unistd.h>

#include <array>

namespace fantail {

int exit_code_of(const Error& error) {
  return error.code == ErrorCode::kInvalid || error.code == ErrorCode::kBusy ? kExitUsage : kExitFailure;
}

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name[0] == '\0' ? "localhost" : name.data();
}

void keep_chunks_in_heap() {
  mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024);
  mallopt(M_TRIM_THRESHOLD, 8 * 1024 * 1024);
}

}  // namespace fantail
