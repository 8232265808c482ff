// SPDX-License-Identifier: Apache-2.0
#include "sys/shared_library.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

#include "icecore/error.hpp"

namespace icecore::sys {

SharedLibrary::SharedLibrary(const std::string& name)
    : handle_(::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) {
  if (handle_ == nullptr) throw Error{Errc::io, fmt::format("load {}: {}", name, ::dlerror())};
}

void* SharedLibrary::find(const char* symbol) const noexcept { return ::dlsym(handle_, symbol); }

}  // namespace icecore::sys
