#include "common/base/thrown.h"

#include <cxxabi.h>

#include <cstdlib>
#include <exception>
#include <memory>
#include <typeinfo>

namespace fantail {
namespace {

constexpr const char* kUnknown = "something that is no std::exception";

std::string type_name(const std::type_info& type) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(abi::__cxa_demangle(type.name(), nullptr, nullptr, &status),
                                                    std::free);
  return name ? name.get() : type.name();
}

void add_to_trace(const std::exception& e, std::string& trace) {
  trace += (trace.empty() ? "" : "\n") + type_name(typeid(e)) + ": " + e.what();
  try {
    std::rethrow_if_nested(e);
  } catch (const std::exception& nested) {
    add_to_trace(nested, trace);
  } catch (...) {
    trace += std::string("\n") + kUnknown;
  }
}

}  // namespace

Thrown current_thrown() {
  try {
    throw;
  } catch (const std::exception& e) {
    Thrown out{type_name(typeid(e)), e.what(), {}};
    add_to_trace(e, out.trace);
    return out;
  } catch (...) {
    return {"unknown", kUnknown, {}};
  }
}

}  // namespace fantail
