// SPDX-License-Identifier: Apache-2.0
#define ICECORE_XXH3 kXxh3
#include "image/xxh3_functions.hpp"
