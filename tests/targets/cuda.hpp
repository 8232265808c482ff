// SPDX-License-Identifier: Apache-2.0
//
// Calls of a libcuda.so.1 that is loaded by path, and device memory whose contents are known.
#pragma once

#include <dlfcn.h>

#include "target.hpp"

namespace target {

using Address = unsigned long long;
inline void* library;

/// Calls a function of the driver by name.
template <class... Arguments>
int cu(const char* name, Arguments... arguments) {
  const auto function = reinterpret_cast<int (*)(Arguments...)>(::dlsym(library, name));
  require(function != nullptr, std::string{name} + " is not there");
  return function(arguments...);
}

template <class... Arguments>
void must_cu(const char* name, Arguments... arguments) {
  const int result = cu(name, arguments...);
  require(result == 0, std::string{name} + " gives " + std::to_string(result));
}

/// Of the calling thread: the primary one of the first device.
inline void use_context() {
  void* context = nullptr;
  must_cu("cuDevicePrimaryCtxRetain", &context, 0);
  must_cu("cuCtxSetCurrent", context);
}

/// Memory by cuMemCreate and cuMemMap, at an address of its own.
struct MappedMemory {
  Address address = 0;
  unsigned long long handle = 0;
};
inline MappedMemory map_memory(std::size_t size) {
  const struct {
    int type = 1, handles = 0, location = 1, device = 0;
    void* nothing = nullptr;
    unsigned char flags[8] = {};
  } properties;
  const struct { int location = 1, device = 0, access = 3; } access;
  MappedMemory memory;
  must_cu("cuMemAddressReserve", &memory.address, size, std::size_t{0}, Address{0}, 0ULL);
  must_cu("cuMemCreate", &memory.handle, size, static_cast<const void*>(&properties), 0ULL);
  must_cu("cuMemMap", memory.address, size, std::size_t{0}, memory.handle, 0ULL);
  must_cu("cuMemSetAccess", memory.address, size, static_cast<const void*>(&access),
          std::size_t{1});
  return memory;
}

inline std::vector<unsigned> numbers(std::uint64_t seed, std::size_t count) {
  std::vector<unsigned> all(count);
  for (std::size_t i = 0; i < count; ++i) all[i] = static_cast<unsigned>(pattern(seed, i));
  return all;
}

/// Device memory whose contents are known.
struct Buffer {
  Address address = 0;
  std::size_t count = 0;
  std::uint64_t seed = 0;
  unsigned added = 0;  ///< to every number since

  void fill() {
    seed = random_number();
    const auto all = numbers(seed, count);
    must_cu("cuMemcpyHtoD_v2", address, static_cast<const void*>(all.data()), count * 4);
  }

  void expect() const {
    std::vector<unsigned> found(count);
    must_cu("cuMemcpyDtoH_v2", static_cast<void*>(found.data()), address, count * 4);
    auto wanted = numbers(seed, count);
    for (unsigned& number : wanted) number += added;
    for (std::size_t i = 0; i < count; ++i)
      require(found[i] == wanted[i], "number " + std::to_string(i) + " of device memory at " +
                                         std::to_string(address) + " is " +
                                         std::to_string(found[i]));
  }
};

}  // namespace target
