// SPDX-License-Identifier: Apache-2.0
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

#include <immintrin.h>

#define XXH_VECTOR XXH_AVX2
#define ICECORE_XXH3 kXxh3Avx2
#include "image/xxh3_functions.hpp"

#ifdef __clang__
#pragma clang attribute pop
#endif
