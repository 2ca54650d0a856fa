#pragma once

#include <string>

namespace fantail {

/// An exception in words, to be carried to another process.
struct Thrown {
  std::string type;  ///< as the compiler spells it: "std::runtime_error"; "unknown": no std::exception
  std::string message;
  std::string trace;  ///< it and the exceptions nested in it (std::throw_with_nested), outermost first, one a line
};

/// Of the exception that is being handled: call it in a catch block.
Thrown current_thrown();

}  // namespace fantail
