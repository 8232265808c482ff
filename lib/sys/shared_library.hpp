// SPDX-License-Identifier: Apache-2.0
#pragma once

// dlopen(3): a library that need not be there.

#include <string>
#include <utility>

namespace icecore::sys {

/// A loaded library.  It stays loaded: what it has started in our process cannot be undone.
class SharedLibrary {
 public:
  /// Throws Errc::io with the loader's own words.
  explicit SharedLibrary(const std::string& name);

  /// nullptr when it has no such symbol.
  void* find(const char* symbol) const noexcept;

  template <class Function>
  Function find_function(const char* symbol) const noexcept {
    return reinterpret_cast<Function>(find(symbol));
  }

 private:
  void* handle_;
};

}  // namespace icecore::sys
