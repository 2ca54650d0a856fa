#pragma once

#include <filesystem>
#include <string>

#include "common/base/result.h"

namespace fantail {

/// The key that all who belong together share: one CURVE key pair (rfc.zeromq.org/spec/26), which each of them uses as
/// its own and as that of the other side. Who does not have it can neither read nor write: not even the public half
/// leaves the file, and without that nobody gets beyond the first message of the handshake.
///
/// On disk: the secret half as Z85 text, 40 characters and a newline, readable by its owner only.
class CurveKey {
 public:
  /// Makes a new one and writes it. kBusy: the file exists already, and is left alone.
  static Status make(const std::filesystem::path& file);
  /// kInvalid: missing, readable by others, or no key; says what to do.
  static Result<CurveKey> load(const std::filesystem::path& file);

  const std::string& secret_half() const { return secret_; }  ///< Z85
  const std::string& public_half() const { return public_; }

 private:
  CurveKey(std::string secret, std::string public_half) : secret_(std::move(secret)), public_(std::move(public_half)) {}
  std::string secret_;
  std::string public_;
};

/// The file that was given, else that of $FANTAIL_KEY_FILE, else "": no key.
std::string key_file_of(const std::string& given);

}  // namespace fantail
