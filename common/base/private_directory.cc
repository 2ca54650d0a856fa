#include "common/base/private_directory.h"

#include <cerrno>
#include <cstdlib>
#include <string>
#include <system_error>

namespace fantail {

Result<PrivateDirectory> PrivateDirectory::make() {
  std::error_code ec;
  std::string pattern = (std::filesystem::temp_directory_path(ec) / "fantail-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) return fail_errno(errno, "cannot make a directory like " + pattern);
  return PrivateDirectory(pattern);
}

PrivateDirectory::~PrivateDirectory() {
  if (path_.empty()) return;
  std::error_code ec;
  std::filesystem::remove_all(path_, ec);
}

}  // namespace fantail
