// SPDX-License-Identifier: Apache-2.0
#pragma once

// What xxh3.cpp and xxh3_avx2.cpp are made of; each says in ICECORE_XXH3 what its functions are
// called.
#include "image/xxh3.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace icecore {
namespace {

uint64_t digest64(const void* bytes, size_t size) noexcept { return XXH3_64bits(bytes, size); }

void digest128(const void* bytes, size_t size, uint64_t& low, uint64_t& high) noexcept {
  const XXH128_hash_t hash = XXH3_128bits(bytes, size);
  low = hash.low64;
  high = hash.high64;
}

}  // namespace

const Xxh3 ICECORE_XXH3{&digest64, &digest128};

}  // namespace icecore
