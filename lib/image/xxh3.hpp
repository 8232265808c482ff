// SPDX-License-Identifier: Apache-2.0
#pragma once

// XXH3 from xxHash's header, compiled twice: for every x86-64 CPU, and (xxh3_avx2.cpp) with AVX2.
// libxxhash chooses between such by itself, but Debian's static library (0.8.1) lacks that part.
//
// No header of C++ here, nor in the files that implement this: an inline function of one, compiled
// with AVX2, might be the copy that the linker keeps for everybody.

#include <stddef.h>
#include <stdint.h>

namespace icecore {

struct Xxh3 {
  uint64_t (*digest64)(const void* bytes, size_t size) noexcept;
  void (*digest128)(const void* bytes, size_t size, uint64_t& low, uint64_t& high) noexcept;
};

extern const Xxh3 kXxh3;
extern const Xxh3 kXxh3Avx2;

}  // namespace icecore
