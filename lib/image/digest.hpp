// SPDX-License-Identifier: Apache-2.0
#pragma once

// Picks the widest vector instructions of the CPU: 22 to 28 GB/s instead of 11.
#include <xxh_x86dispatch.h>

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

inline Digest128 digest128(std::span<const std::byte> bytes) noexcept {
  const XXH128_hash_t hash = ::XXH3_128bits(bytes.data(), bytes.size());
  return {.low = hash.low64, .high = hash.high64};
}

/// XXH3, 64 bit.
inline std::uint64_t digest64(std::span<const std::byte> bytes) noexcept {
  return ::XXH3_64bits(bytes.data(), bytes.size());
}

}  // namespace icecore
