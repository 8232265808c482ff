// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace icecore {

inline constexpr std::size_t kPageSize = 4096;

constexpr std::uint64_t up_to_page(std::uint64_t bytes) {
  return (bytes + kPageSize - 1) / kPageSize * kPageSize;
}

}  // namespace icecore
